"""`make e2e-k8s`: the chart on the cluster that KUBECONFIG names, from install to nothing left.

Redis (with a password), NATS and the example worker are brought by tests/e2e/servers.yaml, into a namespace of its own
that is removed again. The image must be where the node finds it: it is built here, for a node that shares this Docker
engine. Callers come through NodePorts on 127.0.0.1.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import yaml

from router.installed_files import examples_dir
from router.local.client import Caller
from tests.e2e.images import build_arguments
from tests.e2e.load import Load
from tests.e2e.prove import TENANTS, proven
from tests.e2e.steps import ROOT, main, must, sh, step, until

SPACE, RELEASE = "router-e2e", "demo"
DEV = "router-e2e-dev"
NAME = f"{RELEASE}-router"
PASSWORD = "e2e-only-on-the-loopback"  # noqa: S105 - the server lives as long as this run
NATS, REDIS = "nats://127.0.0.1:30422", f"redis://:{PASSWORD}@127.0.0.1:30379/0"
NEXT = "router-fleet:e2e-next"
TENANT = "globex"
TOOLS = ROOT / ".tools" / "bin"

Values = dict[str, Any]


def kubectl(arguments: str, stdin: str | None = None) -> str:
    """One command in the namespace."""
    return sh(f"{TOOLS}/kubectl -n {SPACE} {arguments}", stdin=stdin)


def helm(arguments: str) -> str:
    """One command in the namespace."""
    return sh(f"{TOOLS}/helm -n {SPACE} {arguments}")


def pods() -> dict[str, Any]:
    """The fleet's pods that are not going, by name."""
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=router"
    items = json.loads(kubectl(f"get pods -l {selector} -o json"))["items"]
    return {p["metadata"]["name"]: p for p in items if "deletionTimestamp" not in p["metadata"]}


def values() -> Values:
    """What is installed: two pods, the example policies as files, a Redis with a password."""
    folder = examples_dir() / "policies"
    documents = {
        t: {p.stem: orjson.loads(p.read_bytes()) for p in sorted((folder / t).glob("*.json"))} for t in TENANTS
    }
    return {
        "image": {"repository": "router-fleet", "tag": "dev", "pullPolicy": "Never"},
        "redis": {"url": "redis://redis:6379/0", "existingSecret": "redis"},
        "nats": {"urls": ["nats://nats:4222"]},
        "policies": {"source": "files", "documents": documents},
        # A whole cluster on a few cores: 50 ms, the default, are missed while pods start.
        "settings": {"ROUTER_ADMIN_NATS_READ": "open", "ROUTER_STORE_DEADLINE": "250ms"},
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
        "dashboards": {"enabled": True},
    }


class Release:
    """The release and the values that it has now."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "values.yaml"
        self.values = values()

    def apply(self) -> None:
        """Install or upgrade, and wait until all pods are ready."""
        self.file.write_text(yaml.safe_dump(self.values))
        helm(f"upgrade --install {RELEASE} {ROOT}/helm/router -f {self.file} --wait --timeout 180s")


def try_out() -> None:
    """The commands in values-dev.yaml, word for word."""
    chart = ROOT / "helm" / "router"
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"]
    sh(f"docker tag router-fleet:dev router-fleet:{version}")
    sh(f"{TOOLS}/kubectl create namespace {DEV}")
    lines = (chart / "values-dev.yaml").read_text().splitlines()
    for line in (line.removeprefix("#   ") for line in lines if line.startswith("#   ")):
        program, _, rest = line.partition(" ")
        sh(f"{TOOLS}/{program} -n {DEV} {rest}{' --wait --timeout 120s' if program == 'helm' else ''}")
    sh(f"{TOOLS}/helm -n {DEV} test router --timeout 120s")
    sh(f"{TOOLS}/helm -n {DEV} uninstall router --wait")
    sh(f"{TOOLS}/kubectl delete namespace {DEV} --timeout=120s")


async def work() -> None:
    """The whole story."""
    with step("images") as saw:
        sh(f"docker build -q --network host {build_arguments()} -t router-fleet:dev .")
        sh(f"docker build -q --network host {build_arguments()} --build-arg VERSION=e2e-next -t {NEXT} .")
        saw(sh(f"{TOOLS}/kubectl version").strip().replace("\n", ", "))
    with step("values-dev.yaml, word for word, and helm test"):
        try_out()
    with step("Redis, NATS and a worker"):
        sh(f"{TOOLS}/kubectl create namespace {SPACE}")
        kubectl(f"create secret generic redis --from-literal=password={PASSWORD}")
        kubectl("apply -f -", stdin=(ROOT / "tests/e2e/servers.yaml").read_text())
        kubectl("rollout status deployment/redis deployment/nats --timeout=120s")
    with TemporaryDirectory() as folder:
        release = Release(Path(folder))
        with step("helm install, two pods") as saw:
            release.apply()
            saw(", ".join(pods()))
        with step("proof") as saw:
            saw(await proven(NATS, REDIS, 2))
        with step("helm test"):
            tested()
        with step("the API server takes what cannot work here (dry run)") as saw:
            more = "--set hpa.enabled=true --set networkPolicy.enabled=true"
            rendered = helm(
                f"template {RELEASE} {ROOT}/helm/router -f {release.file} {more} --kube-version {version()}"
            )
            saw(kubectl("apply --dry-run=server -f -", stdin=rendered).strip().replace("\n", ", "))
        await rolled(release)
        await watched(release)
        with step("helm test, again"):
            tested()
    with step("uninstall leaves nothing") as saw:
        helm(f"uninstall {RELEASE} --wait")
        kinds = "all,configmap,secret,serviceaccount,networkpolicy,poddisruptionbudget"

        def left() -> list[str]:
            return kubectl(f"get {kinds} -l app.kubernetes.io/instance={RELEASE} -o name").split()

        await until(lambda: not left(), 180, "nothing is left")
        must(not kubectl("get secret -l owner=helm -o name").split(), "helm's own record is left")
        saw("no object of the release")


def version() -> str:
    """Of the server."""
    found = json.loads(sh(f"{TOOLS}/kubectl version -o json"))
    return str(found["serverVersion"]["gitVersion"]).partition("-")[0]


def tested() -> None:
    """`helm test`, which runs `router selftest` in the cluster."""
    helm(f"test {RELEASE} --timeout 120s")


async def rolled(release: Release) -> None:
    """Upgrade, scale, roll back and kill, under load."""
    with step("upgrade to another image under load") as saw:
        release.values["image"]["tag"] = "e2e-next"
        saw(await under_load(release.apply))
        images = {p["spec"]["containers"][0]["image"] for p in pods().values()}
        must(images == {NEXT}, f"images: {images}")
    with step("scale to 4 under load") as saw:
        release.values["replicas"] = 4
        saw(await under_load(release.apply, min_pods=4))
    with step("roll back under load: two pods, the first image") as saw:
        saw(await under_load(lambda: helm(f"rollback {RELEASE} 1 --wait --timeout 180s")))
        await until(lambda: len(pods()) == 2, 90, "two pods are left")
        images = {p["spec"]["containers"][0]["image"] for p in pods().values()}
        must(images == {"router-fleet:dev"}, f"images: {images}")
        release.values = values()
    with step("kill a pod under load") as saw:
        victim = next(iter(pods()))
        saw(await under_load(lambda: kubectl(f"delete pod {victim} --grace-period=0 --force"), retries=3))
        kubectl(f"rollout status deployment/{NAME} --timeout=120s")


async def under_load(act: Callable[[], object], *, min_pods: int = 1, retries: int = 0) -> str:
    """Do it while requests run, from before to after; what became of them."""
    async with Load(NATS, TENANT, retries=retries) as load:
        await until(lambda: load.sent > 200, 30, "load")
        await asyncio.to_thread(act)
        before = load.sent
        await until(lambda: load.sent > before + 300 and len(load.pods) >= min_pods, 60, f"{min_pods} pods answer")
    return load.seen()


async def watched(release: Release) -> None:
    """What pods take from mounted ConfigMaps, without a restart."""
    names = set(pods())
    async with Caller(NATS) as caller:
        with step("a policy is changed in its ConfigMap") as saw:
            first = await decided(caller)
            release.values["policies"]["documents"][TENANT]["default"]["metadata"] = {"about": "changed by e2e"}
            release.apply()
            hurry()

            async def newer() -> bool:
                return bool((await decided(caller))["policy_revision"] > first["policy_revision"])

            await until(newer, 240, "a newer revision decides")
            saw(f"revision {first['policy_revision']}, then {(await decided(caller))['policy_revision']}")
        with step("the CP state is changed in its ConfigMap, and back") as saw:
            release.values["cp"] = {"state": {"current_cp": "CP1-LC"}}
            release.apply()
            hurry()

            async def baseline() -> bool:
                answers = [(await caller.decide(asked())).error for _ in range(6)]
                return all("requires_cp" in (a.get("details") or {}) for a in answers)

            await until(baseline, 240, "every pod is at the baseline")
            release.values["cp"] = {"state": {"current_cp": "CP2-LC"}}
            release.apply()
            hurry()

            async def open_again() -> bool:
                return all([(await caller.decide(asked())).ok for _ in range(6)])

            await until(open_again, 240, "every pod serves all tenants again")
            saw("baseline for all but one tenant, then all features")
    must(set(pods()) == names, f"pods were replaced: {names} → {set(pods())}")


def hurry() -> None:
    """The kubelet looks at mounted ConfigMaps about once a minute, and at once when its pod changes."""
    for name in pods():
        kubectl(f"annotate pod {name} router.e2e/looked={time.time_ns()} --overwrite")


_asked = 0


def asked() -> dict[str, Any]:
    """A fresh request."""
    global _asked  # noqa: PLW0603 - one script, one counter
    _asked += 1
    return {"version": "1", "tenant_id": TENANT, "request_id": f"watched-{id(main)}-{_asked}", "task": {"type": "echo"}}


async def decided(caller: Caller) -> dict[str, Any]:
    """The decision of a fresh request.

    :raises Failed: it was refused.
    """
    reply = await caller.decide(asked())
    must(reply.ok, f"refused: {reply.error}")
    return reply.decision


def tidy() -> None:
    """The namespaces go with all that is in them."""
    for command in (
        f"{TOOLS}/helm -n {SPACE} uninstall {RELEASE}",
        f"{TOOLS}/kubectl delete namespace {SPACE} {DEV} --timeout=120s",
    ):
        subprocess.run(command.split(), capture_output=True, check=False)


if __name__ == "__main__":
    main(work, tidy)
