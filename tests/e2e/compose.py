"""`make e2e-compose`: docker-compose.yml on a real engine, from build to nothing left.

The project has a name and ports of its own, so it does not touch a fleet that runs here. Without an image of Prometheus
a stand-in with Debian's package is built; without one of Grafana that part is not run, and said so.
"""

import asyncio
import json
import os
import subprocess
import urllib.parse
import urllib.request
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from router.local.client import Caller
from tests.e2e.images import base_image, build_arguments, has_image, stand_ins
from tests.e2e.load import Load
from tests.e2e.prove import proven
from tests.e2e.steps import ROOT, Failed, main, must, sh, step, until

PROJECT = "router-e2e"
CLUSTER = "router-e2e-cluster"
PORTS = {
    "NATS_PORT": "14222",
    "REDIS_PORT": "16379",
    "PROMETHEUS_PORT": "19090",
    "GRAFANA_PORT": "13000",
}
NATS, REDIS = f"nats://127.0.0.1:{PORTS['NATS_PORT']}", f"redis://127.0.0.1:{PORTS['REDIS_PORT']}/0"
PROMETHEUS = f"http://127.0.0.1:{PORTS['PROMETHEUS_PORT']}"
PROMETHEUS_STAND_IN = "router-e2e/prometheus"
ENV = os.environ | PORTS | stand_ins() | {"BUILD_NETWORK": os.environ.get("BUILD_NETWORK", "host")}
TENANT = "globex"
AGAIN = "router-fleet:e2e-again"


def compose(arguments: str, *, project: str = PROJECT, options: str = "", env: dict[str, str] | None = None) -> str:
    """One compose command on the project."""
    return sh(f"docker compose -p {project} {options} {arguments}", env=env or ENV)


def image_of(service: str) -> str:
    """The image that the file names for a service."""
    config = json.loads(compose("config --format json", options="--profile observe"))
    return str(config["services"][service]["image"])


def files_in(image: str) -> str:
    """One hash over names and contents of all that the image adds to its base."""
    listing = "cd /opt/router && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
    return sh(f"docker run --rm --entrypoint sh {image} -c '{listing}'").split()[0]


async def work() -> None:
    """The whole story."""
    with step("build") as saw:
        compose("build router")
        size = int(sh("docker image inspect -f {{.Size}} router-fleet:dev"))
        base = int(sh(f"docker image inspect -f {{{{.Size}}}} {base_image()}"))
        saw(f"router-fleet:dev has {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} of them over its base")
    with step("built again from nothing") as saw:
        sh(f"docker build -q --no-cache --network {ENV['BUILD_NETWORK']} {build_arguments()} -t {AGAIN} .")
        first, again = files_in("router-fleet:dev"), files_in(AGAIN)
        must(first == again, f"/opt/router differs: {first} and {again}")
        saw(f"the same files, sha256 {first[:16]} over all of them")
    with step("the image is hardened") as saw:
        inside = "id -u; touch /opt/router/x 2>/dev/null && echo writable; command -v gcc cc make; true"
        found = sh(f"docker run --rm --read-only --entrypoint sh router-fleet:dev -c '{inside}'").split()
        must(found == ["10001"], f"user, writable files and compilers: {found}")
        saw("user 10001, read-only, no compiler")
    with step("up --wait"):
        compose("up -d --wait")
    with step("proof") as saw:
        saw(await proven(NATS, REDIS, 2))
    with step("selftest, run from the image") as saw:
        compose("run --rm -T router selftest --pods 2")
        saw("all checks ok")
    await changes()
    await observe()
    compose("down -v -t 40")
    await cluster()
    with step("nothing is left") as saw:
        for project in (PROJECT, CLUSTER):
            label = f"label=com.docker.compose.project={project}"
            for what in ("ps -aq", "volume ls -q", "network ls -q"):
                left = sh(f"docker {what} --filter {label}").split()
                must(not left, f"docker {what}: {left}")
        saw("no container, volume or network")


async def changes() -> None:
    """Scale, kill, restart, under load."""
    with step("scale to 4 under load") as saw:
        async with Load(NATS, TENANT) as load:
            await asyncio.to_thread(compose, "up -d --wait --no-recreate --scale router=4")
            await until(lambda: len(load.pods) >= 4, 60, "4 pods answer")
        saw(load.seen())
    with step("kill a pod under load") as saw:
        pod = compose("ps -q router").split()[0]
        async with Load(NATS, TENANT, retries=3) as load:
            await until(lambda: load.sent > 200, 30, "load")
            await asyncio.to_thread(sh, f"docker kill {pod}")
            before = load.sent
            await until(lambda: load.sent > before + 500, 30, "load")
        saw(load.seen())
        compose("up -d --wait --no-recreate --scale router=4")
    with step("scale to 2 under load") as saw:
        async with Load(NATS, TENANT) as load:
            await until(lambda: load.sent > 200, 30, "load")
            await asyncio.to_thread(compose, "up -d --wait --no-recreate --scale router=2")
            before = load.sent
            await until(lambda: load.sent > before + 200, 30, "load")
        saw(load.seen())
    async with Caller(NATS) as caller:
        body = {"version": "1", "tenant_id": TENANT, "request_id": f"before-{os.getpid()}", "task": {"type": "echo"}}
        first = await caller.decide(body)
        must(first.ok, f"refused: {first.error}")

        async def the_same() -> bool:
            again = await caller.decide(body)
            return again.ok and again.decision == first.decision and again.context.get("replayed") is True

        await asyncio.sleep(1.5)  # appendfsync everysec: what is younger may be lost, and that is documented
        with step("Redis is killed and started again") as saw:
            sh(f"docker kill {compose('ps -q redis').strip()}")
            compose("up -d --wait --scale router=2")
            await until(the_same, 30, "the decision is remembered")
            saw("a decision from before is replayed")
        with step("Redis is lost with its volume, and restored from a copy of appendonlydir") as saw:
            compose("stop redis")
            with TemporaryDirectory() as folder:
                compose(f"cp redis:/data/appendonlydir {folder}/")
                compose("rm -f -v redis")
                sh(f"docker volume rm {PROJECT}_redis")
                compose("create redis")
                compose(f"cp {folder}/appendonlydir redis:/data/")
            compose("start redis")
            await until(the_same, 30, "the decision is remembered")
            saw("a decision from before is replayed")


async def observe() -> None:
    """Prometheus with the rules, and every query of the dashboards; Grafana where there is an image of it."""
    env = dict(ENV)
    image = env.get("PROMETHEUS_IMAGE", "")
    if not image:
        image = image_of("prometheus")
        if not has_image(image):
            stand_in = (
                "FROM debian:bookworm-slim\nRUN apt-get update && apt-get install -y --no-install-recommends "
                "prometheus wget && rm -rf /var/lib/apt/lists/*\n"
                'ENTRYPOINT ["prometheus"]\n'
            )
            sh(f"docker build -q --network host -t {PROMETHEUS_STAND_IN} -", stdin=stand_in)
            env["PROMETHEUS_IMAGE"] = image = PROMETHEUS_STAND_IN
    with step("Prometheus scrapes and evaluates") as saw:
        compose("up -d --wait prometheus", options="--profile observe", env=env)
        async with Load(NATS, TENANT):
            await until(lambda: _one("sum(router_ready)") == "2", 60, "both pods are scraped")
            await until(lambda: _one("sum(router:requests:rate5m) > 1"), 90, "recording rules have values")
        groups = _get("/api/v1/rules")["groups"]
        bad = [r["name"] for g in groups for r in g["rules"] if r["health"] == "err"]
        must(not bad, f"rules that cannot be evaluated: {bad}")
        firing = [r["name"] for g in groups for r in g["rules"] if r.get("state") == "firing"]
        must(not firing, f"alerts that fire on a healthy fleet: {firing}")
        saw(f"{sum(len(g['rules']) for g in groups)} rules evaluated with {image}, none fires")
    with step("every query of the dashboards is understood") as saw:
        asked = {
            f"{name.stem}: {panel['title']} {target['refId']}": bool(_query(target["expr"]))
            for name in sorted((ROOT / "helm/router/dashboards").glob("*.json"))
            for panel in json.loads(name.read_text())["panels"]
            for target in panel["targets"]
        }
        saw(f"{len(asked)} queries, {sum(asked.values())} with values")
        print("without values, as nothing of it has happened:", ", ".join(q for q, has in asked.items() if not has))
    grafana = image_of("grafana")
    if not has_image(grafana):
        print(f"not run: Grafana (there is no image {grafana} here)", flush=True)
        return
    with step("Grafana has the dashboards") as saw:
        compose("up -d --wait grafana", options="--profile observe", env=env)
        url = f"http://127.0.0.1:{PORTS['GRAFANA_PORT']}/api/search?tag=router-fleet"
        saw(f"{len(_fetch(url))} dashboards")


async def cluster() -> None:
    """Three NATS nodes, three copies of every stream, one node lost."""
    options = "--env-file examples/compose/cluster.env"
    up = partial(compose, project=CLUSTER, options=options)
    with step("three NATS nodes") as saw:
        up("up -d --wait")
        running = [s for s in up("ps --services").split() if s.startswith("nats")]
        must(len(running) == 3, f"NATS nodes: {running}")
        saw(await proven(NATS, REDIS, 2))
    with step("one of three NATS nodes is lost") as saw:
        sh(f"docker kill {up('ps -q nats-2').strip()}")

        def checked() -> bool:
            try:
                up("run --rm -T router selftest --pods 2")
            except Failed:
                return False
            return True

        await until(checked, 90, "the fleet works on two nodes")
        saw("the fleet passes its selftest on two")
    up("down -v -t 40")


def _fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def _get(path: str) -> dict[str, Any]:
    found: dict[str, Any] = _fetch(PROMETHEUS + path)["data"]
    return found


def _query(expression: str) -> list[Any]:
    for name, value in (("$__rate_interval", "1m"), ("$namespace", ".*"), ("$job", ".*")):
        expression = expression.replace(name, value)
    return _get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]  # type: ignore[no-any-return]


def _one(expression: str) -> str | None:
    found = _query(expression)
    return str(found[0]["value"][1]) if found else None


def tidy() -> None:
    """Nothing stays, whatever happened."""
    subprocess.run(["docker", "image", "rm", "-f", AGAIN], capture_output=True, check=False)
    for project in (PROJECT, CLUSTER):
        options = "--env-file examples/compose/cluster.env" if project == CLUSTER else "--profile observe"
        subprocess.run(
            ["docker", "compose", "-p", project, *options.split(), "down", "-v", "-t", "5"],
            env=ENV,
            capture_output=True,
            check=False,
        )


if __name__ == "__main__":
    main(work, tidy)
