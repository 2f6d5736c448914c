"""One set of values per feature, and all that can be had together."""

from tests.chart.chart import Values

POLICY = {"version": "1.0", "providers": [{"name": "first", "weight": 100}]}

FEATURES: dict[str, Values] = {
    "default": {},
    "one replica": {"replicas": 1},
    "hpa": {"hpa": {"enabled": True, "inFlight": 200}},
    "keda": {"keda": {"enabled": True, "prometheusUrl": "http://prometheus:9090"}},
    "pod monitor": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "service monitor": {"serviceMonitor": {"enabled": True}},
    "rules": {"prometheusRule": {"enabled": True, "runbook": "https://docs.example/OPERATIONS.md"}},
    "dashboards": {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "Router"}}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "narrow network policy": {
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "redisTo": [{"podSelector": {"matchLabels": {"app": "redis"}}}],
            "redisPorts": [6380],
            "natsTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "extraEgress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
        }
    },
    "redis with password and TLS": {
        "redis": {
            "url": "rediss://redis:6380/0",
            "cluster": True,
            "username": "router",
            "existingSecret": "redis",
            "tls": {"existingSecret": "redis-ca", "mutual": True},
        }
    },
    "redis behind sentinels": {
        "redis": {
            "url": "rediss://redis:6380/0",
            "existingSecret": "redis",
            "tls": {"existingSecret": "redis-ca"},
            "sentinel": {
                "addresses": ["sentinel-0:26379", "sentinel-1:26380"],
                "master": "fleet",
                "username": "router",
                "existingSecret": "sentinels",
                "tls": True,
            },
        }
    },
    "api with keys, TLS and an ingress": {
        "api": {
            "enabled": True,
            "existingSecret": "api-keys",
            "corsOrigins": ["https://console.example"],
            "tls": {"existingSecret": "api-tls", "clientCaKey": "ca.crt"},
            "service": {"annotations": {"team": "platform"}},
            "ingress": {"enabled": True, "className": "nginx", "host": "router.example", "tlsSecret": "router-tls"},
        },
        "networkPolicy": {"apiFrom": [{"podSelector": {"matchLabels": {"app": "gateway"}}}]},
    },
    "open api behind a gateway": {
        "api": {
            "enabled": True,
            "auth": "open",
            "hosts": ["router.internal"],
            "service": {"port": 80},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["router.example"]},
        },
    },
    "redis with a replica": {
        "redis": {"url": "redis://redis:6379/0", "replicaUrl": "redis://redis-replica:6381/0"},
    },
    "nats with creds and mutual TLS": {
        "nats": {
            "urls": ["tls://nats-0:4222", "tls://nats-1:4223"],
            "existingSecret": "nats",
            "credsKey": "router.creds",
            "tls": {"existingSecret": "nats-tls", "mutual": True, "first": True},
        }
    },
    "nats with an nkey behind a leaf node": {
        "nats": {
            "urls": ["nats://leaf:4222"],
            "existingSecret": "nats",
            "nkeySeedKey": "router.nk",
            "inboxPrefix": "_ROUTER.inbox",
            "jetStreamDomain": "hub",
        }
    },
    "jetstream through an import": {"nats": {"urls": ["nats://nats:4222"], "jetStreamApiPrefix": "JS.acme.API"}},
    "nats with a password": {
        "nats": {"urls": ["nats://nats:4222"], "user": "router", "existingSecret": "nats", "passwordKey": "password"}
    },
    "admin tokens": {"admin": {"existingSecret": "tokens", "viewerKey": "viewer", "adminKey": "admin-token"}},
    "hashed names": {"audit": {"identitySecret": "identity"}, "settings": {"ROUTER_AUDIT_IDENTITY": "hashed"}},
    "policies": {"policies": {"documents": {"acme": {"default": POLICY}}, "source": "files"}},
    "files of one's own": {
        "cp": {"existingConfigMap": "my-cp", "key": "cp.json"},
        "policies": {"existingConfigMap": "my-policies"},
    },
    "tracing": {"tracing": {"endpoint": "http://collector:4318", "sampleRatio": 0.5}},
    "settings": {"settings": {"ROUTER_ADMIN_NATS_READ": "open", "ROUTER_MAX_IN_FLIGHT": "512"}},
    "audit export": {
        "settings": {"ROUTER_AUDIT_EXPORT_DIR": "/exports/audit"},
        "extraVolumes": [{"name": "exports", "persistentVolumeClaim": {"claimName": "exports"}}],
        "extraVolumeMounts": [{"name": "exports", "mountPath": "/exports"}],
    },
    "extras": {
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "podAnnotations": {"example.org/note": "x"},
        "podLabels": {"team": "platform"},
        "commonLabels": {"cost-centre": "42"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "router", "operator": "Exists"}],
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "pull"}],
        "image": {"digest": "sha256:" + "0" * 64},
    },
    "no selftest": {"selftest": {"enabled": False}},
    "no service account": {"serviceAccount": {"create": False, "name": "theirs"}},
}
