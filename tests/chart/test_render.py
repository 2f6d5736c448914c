"""What the chart makes, by default and with each feature: only the difference is stated."""

import pytest
import yaml

from tests.chart.chart import container, environment, one, render
from tests.chart.features import FEATURES
from tests.chart.queries import rules
from tests.chart.update_differences import STATED, differences


def test_the_default_objects() -> None:
    """No more than these: no rights, no sub-chart, nothing of an operator that may not be there."""
    assert sorted((o["kind"], o["metadata"]["name"]) for o in render()) == [
        ("ConfigMap", "demo-router-cp"),
        ("Deployment", "demo-router"),
        ("NetworkPolicy", "demo-router"),
        ("Pod", "demo-router-selftest"),
        ("PodDisruptionBudget", "demo-router"),
        ("Service", "demo-router"),
        ("ServiceAccount", "demo-router"),
    ]


@pytest.mark.parametrize("feature", FEATURES)
def test_every_object_has_the_labels(feature: str) -> None:
    """Of name, release, version, chart; `uninstall leaves nothing` is looked for by them."""
    for made in render(FEATURES[feature]):
        labels = made["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "router"
        assert labels["app.kubernetes.io/instance"] == "demo"
        assert labels.keys() >= {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}


def test_pods_are_replaced_without_a_gap() -> None:
    """A pod goes only when its successor is ready, and has time for its drain and for JetStream's ack wait."""
    deployment = one(render(), "Deployment")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = deployment["spec"]["template"]["spec"]
    assert environment(render())["ROUTER_DRAIN_TIMEOUT"] == "25s"
    assert pod["terminationGracePeriodSeconds"] > 2 + 25 + 30
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "2"]
    assert {c["topologyKey"] for c in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_probes_ask_what_they_mean() -> None:
    """An outage of Redis or NATS makes no pod start again: liveness asks only whether the loop runs."""
    probes = {name: container(render())[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe")}
    assert probes == {"startupProbe": "/livez", "livenessProbe": "/livez"}
    assert container(render())["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_are_restricted(kind: str) -> None:
    """The restricted profile, no token, no injected names of Services; helm test's pod too."""
    found = one(render(), kind, "demo-router" if kind == "Deployment" else "demo-router-selftest")
    pod = found["spec"]["template"]["spec"] if kind == "Deployment" else found["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("feature", FEATURES)
def test_mounts_are_read_only_and_whole(feature: str) -> None:
    """A subPath would never see a change of its ConfigMap."""
    mounts = container(render(FEATURES[feature])).get("volumeMounts", [])
    assert all("subPath" not in m for m in mounts)
    assert all(m.get("readOnly") for m in mounts if m["name"] not in {"scratch", "exports"})


def test_the_network_policy_lets_out_only_what_is_needed() -> None:
    """Redis, NATS and DNS by default; in comes only the port of /metrics."""
    policy = one(render(), "NetworkPolicy")["spec"]
    assert [sorted({p["port"] for p in rule["ports"]}) for rule in policy["egress"]] == [[6379], [4222], [53]]
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "http", "protocol": "TCP"}]]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_changes_just_this(feature: str) -> None:
    """What differs from the default rendering is what differences.yaml states. After a change that is meant:
    `python -m tests.chart.update_differences`, whose diff shows a reviewer what the chart makes."""
    assert differences(feature) == yaml.safe_load(STATED.read_text())[feature]


def test_an_autoscaler_owns_the_replicas() -> None:
    """The Deployment names none then: an upgrade must not undo what was scaled."""
    for feature, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        objects = render(FEATURES[feature])
        assert "replicas" not in one(objects, "Deployment")["spec"]
        assert one(objects, kind)["spec"]["scaleTargetRef"]["name"] == "demo-router"


def test_the_autoscaler_goes_by_own_metrics() -> None:
    """CPU, and requests in flight a pod."""
    metrics = one(render(FEATURES["hpa"]), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [m["type"] for m in metrics] == ["Resource", "Pods"]
    assert metrics[1]["pods"]["metric"]["name"] == "router_in_flight"
    assert (
        "router_decisions_total"
        in one(render(FEATURES["keda"]), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    )


def test_secrets_are_files() -> None:
    """No secret value is in an environment variable or an argument."""
    both = FEATURES["redis with password and TLS"] | FEATURES["nats with creds and mutual TLS"]
    env = environment(render(both))
    assert env["ROUTER_REDIS_PASSWORD_FILE"] == "/etc/router/secrets/redis/password"  # noqa: S105 - a path
    assert env["ROUTER_REDIS_TLS_CA"] == "/etc/router/tls/redis/ca.crt"
    assert env["ROUTER_NATS_CREDS_FILE"] == "/etc/router/secrets/nats/router.creds"
    assert env["ROUTER_NATS_TLS_KEY"] == "/etc/router/tls/nats/tls.key"
    assert "ROUTER_REDIS_PASSWORD" not in env
    leaf = environment(render(FEATURES["nats with an nkey behind a leaf node"]))
    assert leaf["ROUTER_NATS_NKEY_SEED_FILE"] == "/etc/router/secrets/nats/router.nk"
    assert (leaf["ROUTER_NATS_INBOX_PREFIX"], leaf["ROUTER_NATS_JS_DOMAIN"]) == ("_ROUTER.inbox", "hub")
    imported = environment(render(FEATURES["jetstream through an import"]))
    assert imported["ROUTER_NATS_JS_API_PREFIX"] == "JS.acme.API"
    egress = one(render(both), "NetworkPolicy")["spec"]["egress"]
    assert [[p["port"] for p in rule["ports"]] for rule in egress[:2]] == [[6380], [4222, 4223]]


def test_runbook_links_start_where_the_values_say() -> None:
    """Every alert has one."""
    spec = one(render(FEATURES["rules"]), "PrometheusRule")["spec"]
    alerts = [r for g in spec["groups"] for r in g["rules"] if "alert" in r]
    assert len(alerts) > 20
    assert all(a["annotations"]["runbook_url"].startswith("https://docs.example/OPERATIONS.md#") for a in alerts)


def test_the_rules_are_those_of_the_file() -> None:
    """But for the links, and for the alert that no pod is there: another fleet must not hide that this one is gone."""
    spec = one(render(FEATURES["rules"]), "PrometheusRule")["spec"]
    made = [r for g in spec["groups"] for r in g["rules"]]
    assert [r["expr"] for r in made if r.get("alert") == "RouterAbsent"] == [
        'absent(router_ready{namespace="apps",job="demo"})'
    ]
    kept = [r for r in rules() if r.get("alert") != "RouterAbsent"]
    assert [r["expr"] for r in made if r.get("alert") != "RouterAbsent"] == [r["expr"] for r in kept]


def test_dashboards_become_config_maps() -> None:
    """One each, with the label that Grafana's sidecar looks for."""
    objects = [o for o in render(FEATURES["dashboards"]) if "grafana_dashboard" in o["metadata"]["labels"]]
    assert sorted(o["metadata"]["name"] for o in objects) == [
        "demo-router-audit",
        "demo-router-fleet",
        "demo-router-servers",
        "demo-router-tenants",
        "demo-router-work",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "10.0.0.7"])  # noqa: S104
def test_pods_listen_on_the_address_of_the_settings(host: str) -> None:
    """By default the pod's own default counts, which takes IPv6 and IPv4."""
    assert "ROUTER_HTTP_HOST" not in environment(render())
    assert environment(render({"settings": {"ROUTER_HTTP_HOST": host}}))["ROUTER_HTTP_HOST"] == host
