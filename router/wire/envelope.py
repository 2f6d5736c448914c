"""What workers send around their messages: nothing, or `{"version","kind","data"}`."""

from enum import StrEnum
from typing import NamedTuple, TypeVar

from router.domain.decision import Intake
from router.domain.json import JsonObject, JsonValue
from router.wire.parse import NotJsonError, parse
from router.wire.problems import Problems, Rejected, named

_VERSIONS = ("1", "1.0", "v1")
Word = TypeVar("Word", bound=StrEnum)


class Body(NamedTuple):
    """The fields of a message, and whether an envelope was around them."""

    fields: JsonObject
    enveloped: bool


def body_of(data: bytes, kind: str, max_bytes: int) -> Body | Rejected:
    """The message of that kind; versions 1, 1.0 and v1 are the same, and none at all is taken for it."""
    if len(data) > max_bytes:
        return unreadable(f"has {len(data)} bytes", f"at most {max_bytes} bytes", Intake.PAYLOAD_TOO_LARGE)
    try:
        doc = parse(data)
    except NotJsonError as e:
        return unreadable(str(e), "send one JSON object in UTF-8")
    if type(doc) is not dict:
        return unreadable(f"is {named(doc)}", "send one JSON object")
    found = Problems()
    fields, enveloped = doc, "kind" in doc and "data" in doc
    if enveloped:
        _check_version(found, "version", doc.get("version"))
        inner = doc["data"]
        if doc["kind"] != kind:
            found.add("kind", "is another one", f"{kind} is what belongs on this subject")
        if type(inner) is dict:
            fields = inner
        else:
            found.add("data", f"is {named(inner)}", "an object")
    _check_version(found, "data.version" if enveloped else "version", fields.get("version"))
    return found.rejected() if found else Body(fields, enveloped)


def _check_version(found: Problems, path: str, version: JsonValue) -> None:
    if version is not None and version not in _VERSIONS:
        what = "is not supported" if type(version) is str else f"is {named(version)}"
        found.add(path, what, "this router speaks 1, 1.0 and v1, as a string", Intake.VERSION_UNSUPPORTED)


def word(found: Problems, path: str, value: JsonValue, words: type[Word]) -> Word | None:
    """One of the words; a missing one is a problem too."""
    if type(value) is str:
        try:
            return words(value)
        except ValueError:
            found.add(path, "is not one of the words", "one of " + ", ".join(words))
            return None
    found.add(path, "is missing" if value is None else f"is {named(value)}", "one of " + ", ".join(words))
    return None


def unreadable(what: str, hint: str, intake: Intake = Intake.SCHEMA_VALIDATION_FAILED) -> Rejected:
    """A refusal of bytes that have no fields."""
    found = Problems()
    found.add("", what, hint, intake)
    return found.rejected()
