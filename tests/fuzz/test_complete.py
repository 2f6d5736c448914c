"""Every decoder and packer of wire, store and bus is fuzzed, or named here with the reason.

A decoder takes bytes, a packer returns them. One counts as fuzzed when a target or a round trip calls it.
"""

import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import router
from tests.fuzz.inputs import Inputs
from tests.fuzz.packers import PACKERS
from tests.fuzz.run import one
from tests.fuzz.targets import TARGETS

ROOT = Path(router.__file__).parent
ROOMS = ("bus", "store", "wire")
_TEXT_OF_VALUES = "writes JSON of checked values; a round trip would repeat orjson"
_OWN = "reads and writes what this module has written a moment ago"
NOT_FUZZED = {
    "bus.client.headers.publish": "joins parts that are checked",
    "bus.client.headers.subject": "one regular expression, or ValueError; tests/bus/client/test_headers.py",
    "store.audit.admin_records.packed_act": "msgpack of checked values; target `audit` reads it",
    "store.extensions.figures": "numbers of the code, packed once",
    "store.extensions.packed": "counters of this pod; tests/store/test_extensions.py reads them back",
    "store.keys.marker_beside": "cuts keys of `Keys`; tests/store/servers/test_replicas.py",
    "store.keys.tag_of": "likewise",
    "wire.admin.encode_admin": _TEXT_OF_VALUES,
    "wire.alerts.encode_alert": _TEXT_OF_VALUES,
    "wire.alerts.encode_dead_letter": _TEXT_OF_VALUES,
    "wire.api_keys.digest_of": "a hash of any text",
    "wire.assignment.assignment": "joins a work item, which `job` fuzzes, with checked values",
    "wire.assignment.encode_assigned_event": "likewise",
    "wire.assignment.encode_usage_event": _TEXT_OF_VALUES,
    "wire.assignment.final_end": _OWN,
    "wire.assignment.final_result_to_keep": _OWN,
    "wire.assignment.without_output": _OWN,
    "wire.audit.audit_line": _TEXT_OF_VALUES,
    "wire.backpressure.encode_backpressure": _TEXT_OF_VALUES,
    "wire.extensions.encode_call": _TEXT_OF_VALUES,
    "wire.policies.schema_file": "takes nothing",
    "wire.reply.encode_stored": "as `wire.reply.encode`, of a stored answer, which `remembered` fuzzes",
    "wire.worker.job.assignment_body": "cuts a work item; `job` fuzzes the same cut",
}


def found() -> Iterator[tuple[str, str, int]]:
    """Public functions of modules that take or return bytes: dotted name, file and first line."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "pb" in path.parts:
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and _handles_bytes(node):
                    line = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                    yield f"{module}.{node.name}", str(path), line


def _handles_bytes(function: ast.FunctionDef) -> bool:
    annotations = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs)]
    texts = [ast.unparse(a) for a in annotations if a is not None]
    returned = "" if function.returns is None else ast.unparse(function.returns)
    return "bytes" in texts or returned.split(" | ")[0] in ("bytes", "tuple[bytes, dict[str, str]]", "bytes | None")


def called() -> set[tuple[str, int]]:
    """File and first line of every function that targets and round trips call."""
    seen: set[tuple[str, int]] = set()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            seen.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    sys.setprofile(look)
    try:
        for name, target in TARGETS.items():
            for data in (*target.examples, *Inputs(target.examples, 1, text=target.text).take(30)):
                one(name, data)
        for trip in PACKERS.values():
            for seed in range(40):
                trip(random.Random(seed))  # noqa: S311 - it shall be repeatable
    finally:
        sys.setprofile(None)
    return seen


def test_every_decoder_and_packer_is_fuzzed_or_named() -> None:
    """A new one needs a target; one that is named here and fuzzed after all is named no more."""
    seen = called()
    missing = {name for name, file, line in found() if (file, line) not in seen}
    assert missing == set(NOT_FUZZED)
    assert all(NOT_FUZZED.values())
