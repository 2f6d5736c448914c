"""Every manifest, with every feature, against the schemas of Kubernetes; a field that is not there is an error."""

import re

import kubernetes_validate
import msgspec
import pytest
from kubernetes_validate import SchemaNotFoundError

from tests.chart.chart import Object, render
from tests.chart.features import FEATURES
from tests.chart.operators import SPECS

VERSIONS = [f"1.{minor}" for minor in range(25, 38)]


def problems(objects: list[Object], version: str) -> list[str]:
    """What the schemas of that version say against them."""
    found = []
    for document in objects:
        spec = SPECS.get((document["apiVersion"], document["kind"]))
        try:
            if spec is not None:
                msgspec.convert(document["spec"], spec)
            else:
                kubernetes_validate.validate(document, version, strict=True)
        except (msgspec.ValidationError, kubernetes_validate.ValidationError, SchemaNotFoundError) as error:
            found.append(f"{document['kind']}: {error}")
    return found


@pytest.mark.parametrize("feature", FEATURES)
def test_every_manifest_is_valid_for_every_version(feature: str) -> None:
    """Kubernetes 1.25 to 1.37, which have the same API versions for all that the chart uses."""
    objects = render(FEATURES[feature])
    assert {version: found for version in VERSIONS if (found := problems(objects, version))} == {}


def test_the_check_can_fail() -> None:
    """A field that does not exist is seen."""
    [service] = [o for o in render() if o["kind"] == "Service"]
    service["spec"]["clusterIp"] = "None"
    assert problems([service], "1.31")


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        ("keda", "pollInterval"),
        ("pod monitor", "podMetricEndpoints"),
        ("service monitor", "path"),
        ("rules", "group"),
        ("open api behind a gateway", "host"),
    ],
)
def test_the_check_of_operators_kinds_can_fail(feature: str, field: str) -> None:
    """Kubernetes has no schema of them, so the chart's own list of their fields must see it."""
    [made] = [o for o in render(FEATURES[feature]) if (o["apiVersion"], o["kind"]) in SPECS]
    made["spec"][field] = 1
    assert problems([made], "1.31")


def test_old_clusters_get_the_api_versions_they_have() -> None:
    """1.20 has neither policy/v1 nor autoscaling/v2."""
    kinds = {"PodDisruptionBudget", "HorizontalPodAutoscaler"}
    by_version = {
        version: {o["kind"]: o["apiVersion"] for o in render(FEATURES["hpa"], version=version) if o["kind"] in kinds}
        for version in ("1.20.2", "1.22.0", "1.31.0")
    }
    assert by_version == {
        "1.20.2": {"PodDisruptionBudget": "policy/v1beta1", "HorizontalPodAutoscaler": "autoscaling/v2beta2"},
        "1.22.0": {"PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2beta2"},
        "1.31.0": {"PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2"},
    }


@pytest.mark.parametrize("feature", FEATURES)
def test_names_are_names(feature: str) -> None:
    """RFC 1123, 63 characters at most."""
    for document in render(FEATURES[feature]):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", document["metadata"]["name"])
