{{/* What a pod and `helm test` have in common: the same settings, secrets and files. */}}
{{- define "router.env" -}}
- name: ROUTER_REDIS_URL
  value: {{ .Values.redis.url | quote }}
{{- with .Values.redis.replicaUrl }}
- name: ROUTER_REDIS_REPLICA_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.redis.sentinel }}
{{- if .addresses }}
- name: ROUTER_REDIS_SENTINELS
  value: {{ join "," .addresses | quote }}
- name: ROUTER_REDIS_SENTINEL_MASTER
  value: {{ .master | quote }}
{{- with .username }}
- name: ROUTER_REDIS_SENTINEL_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if .existingSecret }}
- name: ROUTER_REDIS_SENTINEL_PASSWORD_FILE
  value: /etc/router/secrets/redis-sentinel/{{ .passwordKey }}
{{- end }}
{{- if .tls }}
- name: ROUTER_REDIS_SENTINEL_TLS
  value: "true"
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.redis.cluster }}
- name: ROUTER_REDIS_CLUSTER
  value: "true"
{{- end }}
{{- with .Values.redis.username }}
- name: ROUTER_REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if .Values.redis.existingSecret }}
- name: ROUTER_REDIS_PASSWORD_FILE
  value: /etc/router/secrets/redis/{{ .Values.redis.passwordKey }}
{{- end }}
{{- if .Values.redis.tls.existingSecret }}
{{- with .Values.redis.tls.caKey }}
- name: ROUTER_REDIS_TLS_CA
  value: /etc/router/tls/redis/{{ . }}
{{- end }}
{{- if .Values.redis.tls.mutual }}
- name: ROUTER_REDIS_TLS_CERT
  value: /etc/router/tls/redis/tls.crt
- name: ROUTER_REDIS_TLS_KEY
  value: /etc/router/tls/redis/tls.key
{{- end }}
{{- end }}
- name: ROUTER_NATS_URL
  value: {{ join "," .Values.nats.urls | quote }}
{{- with .Values.nats.user }}
- name: ROUTER_NATS_USER
  value: {{ . | quote }}
{{- end }}
{{- with .Values.nats.passwordKey }}
- name: ROUTER_NATS_PASSWORD_FILE
  value: /etc/router/secrets/nats/{{ . }}
{{- end }}
{{- with .Values.nats.tokenKey }}
- name: ROUTER_NATS_TOKEN_FILE
  value: /etc/router/secrets/nats/{{ . }}
{{- end }}
{{- with .Values.nats.credsKey }}
- name: ROUTER_NATS_CREDS_FILE
  value: /etc/router/secrets/nats/{{ . }}
{{- end }}
{{- with .Values.nats.nkeySeedKey }}
- name: ROUTER_NATS_NKEY_SEED_FILE
  value: /etc/router/secrets/nats/{{ . }}
{{- end }}
{{- with .Values.nats.inboxPrefix }}
- name: ROUTER_NATS_INBOX_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- with .Values.nats.jetStreamDomain }}
- name: ROUTER_NATS_JS_DOMAIN
  value: {{ . | quote }}
{{- end }}
{{- with .Values.nats.jetStreamApiPrefix }}
- name: ROUTER_NATS_JS_API_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if .Values.nats.tls.existingSecret }}
{{- with .Values.nats.tls.caKey }}
- name: ROUTER_NATS_TLS_CA
  value: /etc/router/tls/nats/{{ . }}
{{- end }}
{{- if .Values.nats.tls.mutual }}
- name: ROUTER_NATS_TLS_CERT
  value: /etc/router/tls/nats/tls.crt
- name: ROUTER_NATS_TLS_KEY
  value: /etc/router/tls/nats/tls.key
{{- end }}
{{- end }}
{{- if .Values.nats.tls.first }}
- name: ROUTER_NATS_TLS_FIRST
  value: "true"
{{- end }}
- name: ROUTER_PARTITIONS
  value: {{ .Values.partitions | quote }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "router.secretMounts" -}}
{{- if .Values.redis.existingSecret }}
- { name: redis-secret, mountPath: /etc/router/secrets/redis, readOnly: true }
{{- end }}
{{- if .Values.redis.sentinel.existingSecret }}
- { name: redis-sentinel-secret, mountPath: /etc/router/secrets/redis-sentinel, readOnly: true }
{{- end }}
{{- if .Values.redis.tls.existingSecret }}
- { name: redis-tls, mountPath: /etc/router/tls/redis, readOnly: true }
{{- end }}
{{- if .Values.nats.existingSecret }}
- { name: nats-secret, mountPath: /etc/router/secrets/nats, readOnly: true }
{{- end }}
{{- if .Values.nats.tls.existingSecret }}
- { name: nats-tls, mountPath: /etc/router/tls/nats, readOnly: true }
{{- end }}
{{- end -}}

{{- define "router.secretVolumes" -}}
{{- with .Values.redis.existingSecret }}
- name: redis-secret
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.redis.sentinel.existingSecret }}
- name: redis-sentinel-secret
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.redis.tls.existingSecret }}
- name: redis-tls
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.nats.existingSecret }}
- name: nats-secret
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- with .Values.nats.tls.existingSecret }}
- name: nats-tls
  secret: { secretName: {{ . }}, defaultMode: 0440 }
{{- end }}
{{- end -}}

{{/* Who the pods are and where they may run. */}}
{{- define "router.placement" -}}
serviceAccountName: {{ include "router.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
