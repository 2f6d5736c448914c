"""Which fields the chart may use of what operators define: Kubernetes itself has no schema of these kinds.

Closed: a field that is not here is a mistake, or has to be looked up in the operator's own definition first.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, field

Text = Annotated[str, Meta(min_length=1)]
Time = Annotated[str, Meta(pattern="^([0-9]+(ms|s|m|h|d|w|y))+$")]
Count = Annotated[int, Meta(ge=0)]
Texts = dict[str, str]


class Closed(Struct, forbid_unknown_fields=True):
    """Of exactly these fields."""


class Endpoint(Closed):
    """Where to scrape."""

    port: Text
    path: Text
    interval: Time


class Selector(Closed):
    """Whom it concerns."""

    match: Texts = field(name="matchLabels")


class PodMonitor(Closed):
    """monitoring.coreos.com/v1."""

    job_label: Text = field(name="jobLabel")
    selector: Selector
    endpoints: Annotated[list[Endpoint], Meta(min_length=1)] = field(name="podMetricsEndpoints")


class ServiceMonitor(Closed):
    """monitoring.coreos.com/v1."""

    job_label: Text = field(name="jobLabel")
    selector: Selector
    endpoints: Annotated[list[Endpoint], Meta(min_length=1)]


class Rule(Closed):
    """Records, or alerts."""

    expr: Text
    record: Text | None = None
    alert: Text | None = None
    held: Time | None = field(name="for", default=None)
    labels: Texts | None = None
    annotations: Texts | None = None

    def __post_init__(self) -> None:
        if (self.record is None) == (self.alert is None):
            raise ValueError("either records or alerts")


class Group(Closed):
    """Rules that are evaluated one after the other."""

    name: Text
    rules: Annotated[list[Rule], Meta(min_length=1)]
    interval: Time | None = None


class PrometheusRule(Closed):
    """monitoring.coreos.com/v1."""

    groups: list[Group]


class Target(Closed):
    """What is scaled."""

    name: Text
    kind: Text
    version: Text = field(name="apiVersion")


class Trigger(Closed):
    """By what; its metadata are texts, numbers too."""

    type: Text
    metadata: Texts


class ScaledObject(Closed):
    """keda.sh/v1alpha1."""

    target: Target = field(name="scaleTargetRef")
    minimum: Count = field(name="minReplicaCount")
    maximum: Count = field(name="maxReplicaCount")
    polling: Count = field(name="pollingInterval")
    cooldown: Count = field(name="cooldownPeriod")
    triggers: Annotated[list[Trigger], Meta(min_length=1)]


class ParentReference(Closed):
    """A gateway."""

    name: Text
    namespace: Text | None = None
    section: Text | None = field(name="sectionName", default=None)


class PathMatch(Closed):
    """A path and all below it."""

    type: Text
    value: Annotated[str, Meta(pattern="^/")]


class RouteMatch(Closed):
    """Which requests."""

    path: PathMatch


class BackendReference(Closed):
    """A Service."""

    name: Text
    port: Annotated[int, Meta(ge=1, le=65535)]


class RouteRule(Closed):
    """Where requests go."""

    matches: Annotated[list[RouteMatch], Meta(min_length=1)]
    backends: Annotated[list[BackendReference], Meta(min_length=1)] = field(name="backendRefs")


class HTTPRoute(Closed):
    """gateway.networking.k8s.io/v1."""

    parents: Annotated[list[ParentReference], Meta(min_length=1)] = field(name="parentRefs")
    rules: Annotated[list[RouteRule], Meta(min_length=1)]
    hostnames: list[Text] = []


SPECS: dict[tuple[str, str], Any] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PrometheusRule,
    ("keda.sh/v1alpha1", "ScaledObject"): ScaledObject,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTPRoute,
}
