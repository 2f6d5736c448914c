"""`router gate`: the CP state file, the features it allows, and the view of each pod."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.shared.audit_rows import moment
from router.cli.shared.exits import Exit
from router.cli.shared.output import print_facts, print_json, print_table
from router.cli.shared.target import JsonOption, local_facts
from router.errors import InvalidInput, PodUnavailable, Problem

if TYPE_CHECKING:
    from router.domain.gate import Checkpoint, Unusable

LOCAL_STATE = Path(".local/cp_state.json")
HTTP_S = 3.0


def gate(
    file: Annotated[
        Path | None,
        typer.Option("--file", help="State file; else ROUTER_CP_STATE_PATH, else that of .local."),
    ] = None,
    pod: Annotated[
        list[str] | None,
        typer.Option(
            "--pod", metavar="URL", help="HTTP address of a pod; repeatable. Without it: those of .local/ready.json."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the CP gate: state file, features, and the view of each pod. Exit code 1: it is closed here or in a pod.

    Without a configured file, the verdict comes from the pods alone.

    Example: router gate --pod http://127.0.0.1:8080
    """
    path = file or _path()
    pods = [_asked(url) for url in pod or local_facts().get("pods", [])]
    here = _of_pods(pods) if path is None and pods else _of_file(path)
    here["pods"] = pods
    if json:
        print_json(here)
    else:
        _show(here, pods)
    raise typer.Exit(Exit.OK if here["open"] and all(p["open"] for p in pods) else Exit.NEGATIVE)


def _of_file(path: Path | None) -> dict[str, Any]:
    """The gate as the file says; without one it is closed."""
    from router.domain.gate import GATED, fault_of

    state = _seen(path)
    fault = fault_of(state)
    name = getattr(state, "name", None)
    return {
        "file": None if path is None else str(path),
        "current_cp": name,
        "updated_at_ms": getattr(state, "updated_at_ms", None),
        "open": fault is None,
        "reason": None if fault is None else fault.value,
        "detail": getattr(state, "detail", f"current_cp is {name}"),
        "features": dict.fromkeys(GATED, fault is None),
    }


def _of_pods(pods: list[dict[str, Any]]) -> dict[str, Any]:
    """The gate as the pods have it: open if it is open in every pod, else that of the first pod where it is closed."""
    from router.domain.gate import GATED

    shown = next((p for p in pods if not p["open"]), pods[0])
    return {
        "file": None,
        "current_cp": shown["current_cp"],
        "updated_at_ms": None,
        "open": shown["open"],
        "reason": None if shown["open"] else shown["reason"],
        "detail": f"{shown['pod']}: {shown['detail']}",
        "features": dict.fromkeys(GATED, shown["open"]),
    }


def _show(here: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    from router.domain.gate import GATED, KEPT, REQUIRED_CP

    verdict = "open" if here["open"] else f"closed ({here['reason']}): CP1 baseline; features need {REQUIRED_CP}"
    print_facts(
        (
            ("state file", here["file"] or ("as the pods say" if pods else "none (ROUTER_CP_STATE_PATH is not set)")),
            ("current_cp", here["current_cp"]),
            ("updated_at", _time(here["updated_at_ms"])),
            ("gate", verdict),
            ("detail", None if here["open"] else here["detail"]),
        )
    )
    print_table(
        ("feature", "", "now"),
        [(what, "kept always", "on") for what in KEPT]
        + [(what, name, "on" if here["open"] else "off") for name, what in GATED.items()],
    )
    if pods:
        rows = [
            (p["pod"], "open" if p["open"] else "closed", p["current_cp"], _time(p["since_ms"]), _why(p)) for p in pods
        ]
        print_table(("pod", "gate", "current_cp", "since", "why"), rows, whole=("since",))


def _why(pod: dict[str, Any]) -> str:
    return " ".join(str(x) for x in (pod["reason"], None if pod["open"] else pod["detail"], pod["doubt"]) if x)


def _path() -> Path | None:
    from router.settings import load

    configured = load().cp_state_path
    return configured if configured is not None or not LOCAL_STATE.parent.is_dir() else LOCAL_STATE


def _seen(path: Path | None) -> "Checkpoint | Unusable":
    """The state that a new pod would read: without the grace time after a good file."""
    from router.domain.gate import Fault, Unusable, parse
    from router.edge.state_file import MountedFile

    try:
        content = MountedFile(path).read()
    except OSError as fault:
        return Unusable(Fault.UNREADABLE, fault.strerror or str(fault))
    return Unusable(Fault.MISSING, "there is no file") if content is None else parse(content)


def _asked(url: str) -> dict[str, Any]:
    """The view of one pod.

    :raises InvalidInput: this is not an address, or the answer is not a pod's.
    :raises PodUnavailable: the pod does not answer.
    """
    from http.client import HTTPException

    import orjson

    address = f"{url.rstrip('/')}/readyz"
    if not _is_address(address):
        raise InvalidInput([Problem("--pod", message=f"{url} is not an address", hint="such as http://127.0.0.1:8080")])
    try:
        body = _body_of(address)
    except (OSError, HTTPException) as fault:
        raise PodUnavailable(f"{url} does not answer: {fault}") from fault
    try:
        facts = orjson.loads(body)
        return {"pod": facts["pod"], **facts["gate"]}
    except (ValueError, KeyError, TypeError) as fault:
        raise InvalidInput([Problem("--pod", message=f"{url} does not answer as a pod does")]) from fault


def _body_of(address: str) -> bytes:
    """The body that an HTTP server answers with, whatever the status: a pod that is not ready reports its gate, too."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=HTTP_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _is_address(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        return False


def _time(at_ms: int | None) -> str | None:
    return moment(at_ms * 1000) if at_ms else None
