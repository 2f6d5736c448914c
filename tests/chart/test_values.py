"""Wrong values fail the install, in words that say what to change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.settings import load
from tests.chart.chart import CHART, NEEDED, Refused, Values, container, environment, render, render_only
from tests.chart.features import FEATURES, POLICY

TYPOS: dict[str, Values] = {
    "replica": {"replica": 3},
    "image.tags": {"image": {"tags": "1"}},
    "ROUTER_MAX_INFLIGHT": {"settings": {"ROUTER_MAX_INFLIGHT": "1"}},
    "ROUTER_REDIS_PASSWORD": {"settings": {"ROUTER_REDIS_PASSWORD": "hunter22"}},
    "ROUTER_PARTITIONS": {"settings": {"ROUTER_PARTITIONS": "3"}},
    "maximum": {"partitions": 5000},
    "two": {"replicas": "two"},
    "redis://": {"redis": {"url": "redis://:password@redis:6379"}},
    "minLength": {"cp": {"existingConfigMap": "mine", "key": ""}},
    "subPath": {"extraVolumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "y"}]},
}

KEYS: Values = {"enabled": True, "existingSecret": "keys"}

GUARDS: dict[str, Values] = {
    "set audit.identitySecret": {"settings": {"ROUTER_AUDIT_IDENTITY": "hashed"}},
    "set api.existingSecret": {"api": {"enabled": True}},
    "drop it, or set api.auth to keys": {"api": {"enabled": True, "auth": "open", "existingSecret": "keys"}},
    "api.hosts has an effect only": {"api": {**KEYS, "hosts": ["a"]}},
    "set api.enabled, or disable": {"api": {"ingress": {"enabled": True, "host": "a"}}},
    "enable api.ingress or api.httpRoute": {
        "api": {
            **KEYS,
            "ingress": {"enabled": True, "host": "a"},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]},
        }
    },
    "set api.ingress.host": {"api": {**KEYS, "ingress": {"enabled": True}}},
    "set api.httpRoute.parentRefs": {"api": {**KEYS, "httpRoute": {"enabled": True}}},
    "set api.tls.existingSecret": {"api": {**KEYS, "tls": {"clientCaKey": "ca.crt"}}},
    "enable hpa or keda, not both": {"hpa": {"enabled": True}, "keda": {"enabled": True, "prometheusUrl": "http://p"}},
    "set hpa.cpuPercent or hpa.inFlight": {"hpa": {"enabled": True, "cpuPercent": 0}},
    "hpa.minReplicas must not be more": {"hpa": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}},
    "set resources.requests.cpu": {"hpa": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
    "set keda.prometheusUrl": {"keda": {"enabled": True}},
    "keda.minReplicas must not be more": {
        "keda": {"enabled": True, "prometheusUrl": "http://p", "minReplicas": 9, "maxReplicas": 3}
    },
    "enable podMonitor or serviceMonitor": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
    "terminationGracePeriodSeconds must be more": {"drainSeconds": 60},
    "drop redis.replicaUrl or redis.cluster": {
        "redis": {"url": "redis://redis:6379", "replicaUrl": "redis://replica:6379", "cluster": True}
    },
    "write rediss://": {"redis": {"url": "redis://redis:6379", "tls": {"existingSecret": "ca"}}},
    "write tls:// in all of them": {"nats": {"urls": ["tls://a:4222", "nats://b:4222"]}},
    "drop redis.sentinel.addresses or redis.cluster": {
        "redis": {"url": "redis://redis:6379", "cluster": True, "sentinel": {"addresses": ["s:26379"]}}
    },
    "set redis.sentinel.addresses": {"redis": {"url": "redis://redis:6379", "sentinel": {"tls": True}}},
    "redis.tls.mutual needs a certificate": {"redis": {"url": "rediss://redis:6379", "tls": {"mutual": True}}},
    "redis.replicaUrl has no TLS": {"redis": {"url": "rediss://redis:6379", "replicaUrl": "redis://replica:6379"}},
    "nats.tls.mutual needs a certificate": {"nats": {"urls": ["tls://nats:4222"], "tls": {"mutual": True}}},
    "NATS takes one kind of credential": {
        "nats": {"urls": ["nats://n:4222"], "existingSecret": "s", "credsKey": "c", "tokenKey": "t"}
    },
    "set nats.jetStreamDomain or nats.jetStreamApiPrefix, not both": {
        "nats": {"urls": ["nats://n:4222"], "jetStreamDomain": "hub", "jetStreamApiPrefix": "JS.API"}
    },
    "name nats.passwordKey, nats.tokenKey, nats.credsKey or nats.nkeySeedKey": {
        "nats": {"urls": ["nats://n:4222"], "existingSecret": "s"}
    },
    "set nats.existingSecret": {"nats": {"urls": ["nats://n:4222"], "tokenKey": "t"}},
    "set nats.user": {"nats": {"urls": ["nats://n:4222"], "existingSecret": "s", "passwordKey": "p"}},
    "name admin.viewerKey": {"admin": {"existingSecret": "tokens"}},
    "policies.documents or policies.existingConfigMap, not both": {
        "policies": {"existingConfigMap": "mine", "documents": {"acme": {"default": POLICY}}}
    },
    "mount a volume that all pods share there": {
        "settings": {"ROUTER_AUDIT_EXPORT_DIR": "/exports"},
        "extraVolumeMounts": [{"name": "other", "mountPath": "/exports-of-others"}],
    },
    "two underscores": {"policies": {"documents": {"a__b": {"default": POLICY}}}},
    "policies.source is files, but there are none": {"policies": {"source": "files"}},
    "set selftest.tenant": {"settings": {"ROUTER_ALLOWED_TENANTS": "acme"}},
    "is a setting of the router": {"extraEnv": [{"name": "ROUTER_LOG_LEVEL", "value": "debug"}]},
}


@pytest.mark.parametrize("word", TYPOS)
def test_what_the_schema_does_not_know_is_refused(word: str) -> None:
    """Misspelt values, unknown or secret settings, numbers out of bounds, passwords in URLs."""
    with pytest.raises(Refused, match="schema"):
        render(TYPOS[word])


@pytest.mark.parametrize("sentence", GUARDS)
def test_contradictions_are_refused_in_a_sentence(sentence: str) -> None:
    """Each names the values to change."""
    with pytest.raises(Refused) as refused:
        render(GUARDS[sentence])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"nats": NEEDED["nats"]}, "set redis.url"), ({"redis": NEEDED["redis"]}, "set nats.urls")],
)
def test_the_servers_are_needed(values: Values, sentence: str) -> None:
    """There is no default of localhost in a cluster."""
    with pytest.raises(Refused) as refused:
        render_only(values)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("feature", FEATURES)
def test_the_pod_understands_its_environment(feature: str, tmp_path: Path) -> None:
    """Every variable that the chart writes is a setting with a valid value, and every file it names is mounted."""
    objects = render(FEATURES[feature])
    env: dict[str, str] = {}
    for name, value in environment(objects).items():
        if not isinstance(value, str) or not name.startswith("ROUTER_"):
            continue
        if value.startswith("/etc/router/"):
            assert any(value.startswith(m["mountPath"]) for m in container(objects)["volumeMounts"]), value
            path = tmp_path / value.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_text(f"{path.name}: a secret that is long enough")
            value = str(path)  # noqa: PLW2901 - where a pod would find it
        env[name] = value
    assert load(env).redis_url.startswith("redis")


def test_the_values_for_development_render() -> None:
    """values-dev.yaml is whole."""
    render_only(yaml.safe_load((CHART / "values-dev.yaml").read_text()))


def test_no_value_may_be_unknown_at_any_depth() -> None:
    """The schema is strict wherever the chart names the keys."""

    def loose(schema: dict[str, Any], path: str) -> list[str]:
        found = []
        if schema.get("properties") and schema.get("additionalProperties") is not False:
            found.append(path)
        for name, part in schema.get("properties", {}).items():
            found += loose(part, f"{path}.{name}")
        return found

    assert loose(json.loads((CHART / "values.schema.json").read_text()), "") == []
