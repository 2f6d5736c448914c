"""The optional envelope around messages of workers: `{"version","kind","data"}`."""

from enum import StrEnum
from typing import TypeVar

from router.domain.decide.decision import Intake
from router.domain.defects import Defect
from router.domain.json import JsonObject, JsonValue
from router.wire.body import read_object
from router.wire.problems import Problems, Rejected, named

_VERSIONS = ("1", "1.0", "v1")
Member = TypeVar("Member", bound=StrEnum)


def open_envelope(
    data: bytes, kind: str, max_bytes: int, warnings: Problems, *, bare_only: frozenset[str] = frozenset()
) -> JsonObject | Rejected:
    """Read the fields of a message of `kind`, with or without envelope; defects that cost nothing are warnings.

    Versions 1, 1.0 and v1 mean the same, and so does the number 1; a missing version means them too. `bare_only`:
    fields that mean something else in an envelope, and are left out there.
    """
    doc = read_object(data, max_bytes, warnings)
    if isinstance(doc, Rejected):
        return doc
    problems = Problems()
    fields, enveloped = doc, "kind" in doc and "data" in doc
    if enveloped:
        _check_version(problems, "version", doc.get("version"), warnings)
        inner = doc["data"]
        if doc["kind"] != kind:
            problems.add("kind", message="does not belong on this subject", hint=f"send {kind}")
        if type(inner) is dict:
            fields = {k: v for k, v in inner.items() if k not in bare_only}
        else:
            problems.add("data", message=f"is {named(inner)}", hint="send an object")
    _check_version(problems, "data.version" if enveloped else "version", fields.get("version"), warnings)
    return problems.rejected() if problems else fields


def _check_version(problems: Problems, path: str, version: JsonValue, warnings: Problems) -> None:
    if version is None or (type(version) is str and version in _VERSIONS):
        return
    if type(version) in (int, float) and version == 1:
        warnings.warn(Defect.OTHER_FORM, path, text="is a number: read as text")
        return
    message = "is not supported" if type(version) is str else f"is {named(version)}"
    problems.add(path, message=message, hint='send "1", "1.0" or "v1"', intake=Intake.VERSION_UNSUPPORTED)


def enum_member(
    problems: Problems, path: str, value: JsonValue, members: type[Member], warnings: Problems
) -> Member | None:
    """Check that the value is a member of an enum, in any case; a missing value is a problem too."""
    if type(value) is str:
        try:
            return members(value)
        except ValueError:
            pass
        try:
            member = members(value.lower())
        except ValueError:
            problems.add(path, message="is not a known value", hint="send one of " + ", ".join(members))
            return None
        warnings.warn(Defect.OTHER_FORM, path, text=f"is not in lower case: read as {member}")
        return member
    problems.add(
        path, message="is missing" if value is None else f"is {named(value)}", hint="send one of " + ", ".join(members)
    )
    return None
