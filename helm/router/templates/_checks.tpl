{{/* What a schema cannot see: values that contradict each other. Every message says what to change. */}}
{{- define "router.checks" -}}
{{- if not .Values.redis.url -}}
{{- fail "The fleet needs a Redis: set redis.url to its address, such as redis://redis:6379/0." -}}
{{- end -}}
{{- if not .Values.nats.urls -}}
{{- fail "The fleet needs NATS with JetStream: set nats.urls to its addresses, such as [nats://nats:4222]." -}}
{{- end -}}
{{- if and .Values.hpa.enabled .Values.keda.enabled -}}
{{- fail "Two autoscalers would fight over the replicas: enable hpa or keda, not both." -}}
{{- end -}}
{{- if and .Values.hpa.enabled (not .Values.hpa.cpuPercent) (not .Values.hpa.inFlight) -}}
{{- fail "The autoscaler has nothing to go by: set hpa.cpuPercent or hpa.inFlight." -}}
{{- end -}}
{{- if and .Values.hpa.enabled (gt (int .Values.hpa.minReplicas) (int .Values.hpa.maxReplicas)) -}}
{{- fail "The autoscaler's bounds are the wrong way round: hpa.minReplicas must not be more than hpa.maxReplicas." -}}
{{- end -}}
{{- if and .Values.hpa.enabled .Values.hpa.cpuPercent (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "CPU use is measured against the request: set resources.requests.cpu, or set hpa.cpuPercent to 0." -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) -}}
{{- fail "The autoscaler's bounds are the wrong way round: keda.minReplicas must not be more than keda.maxReplicas." -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusUrl) -}}
{{- fail "KEDA asks Prometheus for the fleet's metrics: set keda.prometheusUrl." -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- fail "Every pod would be scraped twice: enable podMonitor or serviceMonitor, not both." -}}
{{- end -}}
{{- $grace := add (int .Values.preStopSeconds) (int .Values.drainSeconds) 30 -}}
{{- if le (int .Values.terminationGracePeriodSeconds) $grace -}}
{{- fail (printf "A pod would be killed while it drains: terminationGracePeriodSeconds must be more than preStopSeconds + drainSeconds + 30, here %d." $grace) -}}
{{- end -}}
{{- if and .Values.redis.cluster .Values.redis.replicaUrl -}}
{{- fail "A replica to read from belongs to a single server: drop redis.replicaUrl or redis.cluster." -}}
{{- end -}}
{{- if and .Values.redis.tls.existingSecret (not (hasPrefix "rediss://" .Values.redis.url)) -}}
{{- fail "redis.tls.existingSecret is set, but redis.url is not a TLS address: write rediss://." -}}
{{- end -}}
{{- with .Values.redis.sentinel -}}
{{- if and .addresses $.Values.redis.cluster -}}
{{- fail "A Redis Cluster has no sentinels: drop redis.sentinel.addresses or redis.cluster." -}}
{{- end -}}
{{- if and (or .username .existingSecret .tls) (not .addresses) -}}
{{- fail "redis.sentinel has a login or TLS, but no sentinels: set redis.sentinel.addresses." -}}
{{- end -}}
{{- end -}}
{{- if and .Values.redis.tls.mutual (not .Values.redis.tls.existingSecret) -}}
{{- fail "redis.tls.mutual needs a certificate: set redis.tls.existingSecret to a secret with tls.crt and tls.key." -}}
{{- end -}}
{{- if and (hasPrefix "rediss://" .Values.redis.url) (hasPrefix "redis://" .Values.redis.replicaUrl) -}}
{{- fail "redis.replicaUrl has no TLS, and the login would be sent in clear text: write rediss://." -}}
{{- end -}}
{{- $schemes := dict -}}
{{- range .Values.nats.urls -}}{{- $_ := set $schemes (first (splitList "://" .)) true -}}{{- end -}}
{{- if gt (len $schemes) 1 -}}
{{- fail "nats.urls mixes nats:// with tls://, and one server without TLS is enough to lose the login: write tls:// in all of them." -}}
{{- end -}}
{{- if and .Values.nats.tls.mutual (not .Values.nats.tls.existingSecret) -}}
{{- fail "nats.tls.mutual needs a certificate: set nats.tls.existingSecret to a secret with tls.crt and tls.key." -}}
{{- end -}}
{{- $ways := 0 -}}
{{- range list .Values.nats.passwordKey .Values.nats.tokenKey .Values.nats.credsKey .Values.nats.nkeySeedKey -}}
{{- if . -}}{{- $ways = add1 $ways -}}{{- end -}}
{{- end -}}
{{- if gt (int $ways) 1 -}}
{{- fail "NATS takes one kind of credential: set one of nats.passwordKey, nats.tokenKey, nats.credsKey and nats.nkeySeedKey." -}}
{{- end -}}
{{- if and .Values.nats.existingSecret (eq (int $ways) 0) -}}
{{- fail "nats.existingSecret is set, but not what is in it: name nats.passwordKey, nats.tokenKey, nats.credsKey or nats.nkeySeedKey." -}}
{{- end -}}
{{- if and (gt (int $ways) 0) (not .Values.nats.existingSecret) -}}
{{- fail "A key for NATS is named, but no secret: set nats.existingSecret." -}}
{{- end -}}
{{- if and .Values.nats.jetStreamDomain .Values.nats.jetStreamApiPrefix -}}
{{- fail "A JetStream domain has an API prefix of its own: set nats.jetStreamDomain or nats.jetStreamApiPrefix, not both." -}}
{{- end -}}
{{- if and .Values.nats.passwordKey (not .Values.nats.user) -}}
{{- fail "A password for NATS belongs to a user: set nats.user." -}}
{{- end -}}
{{- if and .Values.admin.existingSecret (not (or .Values.admin.viewerKey .Values.admin.operatorKey .Values.admin.adminKey .Values.admin.tokensKey)) -}}
{{- fail "admin.existingSecret is set, but not what is in it: name admin.viewerKey, operatorKey, adminKey or tokensKey." -}}
{{- end -}}
{{- with .Values.api -}}
{{- if and .enabled (eq .auth "keys") (not .existingSecret) -}}
{{- fail "The HTTP API asks for keys: make a file with router key create, and set api.existingSecret to a secret that holds it." -}}
{{- end -}}
{{- if and (eq .auth "open") .existingSecret -}}
{{- fail "api.existingSecret has no effect where api.auth is open: drop it, or set api.auth to keys." -}}
{{- end -}}
{{- if and .hosts (ne .auth "open") -}}
{{- fail "api.hosts has an effect only where api.auth is open: drop it." -}}
{{- end -}}
{{- if and (or .ingress.enabled .httpRoute.enabled) (not .enabled) -}}
{{- fail "There is no HTTP API to lead to: set api.enabled, or disable api.ingress and api.httpRoute." -}}
{{- end -}}
{{- if and .ingress.enabled .httpRoute.enabled -}}
{{- fail "One way leads to the API: enable api.ingress or api.httpRoute, not both." -}}
{{- end -}}
{{- if and .ingress.enabled (not .ingress.host) -}}
{{- fail "An Ingress needs a name: set api.ingress.host." -}}
{{- end -}}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) -}}
{{- fail "An HTTPRoute belongs to a gateway: set api.httpRoute.parentRefs." -}}
{{- end -}}
{{- if and .tls.clientCaKey (not .tls.existingSecret) -}}
{{- fail "api.tls.clientCaKey names a key, but no secret: set api.tls.existingSecret." -}}
{{- end -}}
{{- end -}}
{{- if and (eq (get .Values.settings "ROUTER_AUDIT_IDENTITY") "hashed") (not .Values.audit.identitySecret) -}}
{{- fail "ROUTER_AUDIT_IDENTITY is hashed and has no key: set audit.identitySecret to a secret that holds it." -}}
{{- end -}}
{{- if and .Values.policies.existingConfigMap .Values.policies.documents -}}
{{- fail "Policies come from one ConfigMap: set policies.documents or policies.existingConfigMap, not both." -}}
{{- end -}}
{{- with get .Values.settings "ROUTER_AUDIT_EXPORT_DIR" -}}
{{- $folder := . -}}
{{- $mounted := false -}}
{{- range $.Values.extraVolumeMounts -}}
{{- if or (eq $folder .mountPath) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $folder) -}}{{- $mounted = true -}}{{- end -}}
{{- end -}}
{{- if not $mounted -}}
{{- fail (printf "ROUTER_AUDIT_EXPORT_DIR is %s, and the pods' own file system is read-only: mount a volume that all pods share there, with extraVolumes and extraVolumeMounts." $folder) -}}
{{- end -}}
{{- end -}}
{{- range $tenant, $documents := .Values.policies.documents -}}
{{- range $id, $_ := $documents -}}
{{- if or (contains "__" $tenant) (contains "__" $id) -}}
{{- fail (printf "A ConfigMap's file is called <tenant>__<policy>.json, so neither name may hold two underscores: rename tenant %q or policy %q, or apply it with router policy apply." $tenant $id) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.policies.source "files") (not (include "router.policiesConfigMap" .)) -}}
{{- fail "policies.source is files, but there are none: set policies.documents or policies.existingConfigMap." -}}
{{- end -}}
{{- if and .Values.selftest.enabled (get .Values.settings "ROUTER_ALLOWED_TENANTS") (not .Values.selftest.tenant) -}}
{{- fail "ROUTER_ALLOWED_TENANTS keeps helm test's tenant out: set selftest.tenant to a name in that list which nobody uses, or set selftest.enabled to false." -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "ROUTER_" .name -}}
{{- fail (printf "%s in extraEnv is a setting of the router: put it into settings, where its name is checked." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
