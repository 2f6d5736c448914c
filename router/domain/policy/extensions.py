"""The policy language: the extensions that are called over NATS before and after the decision."""

from enum import StrEnum
from typing import Final

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.collections import ListOf
from router.domain.policy.fallbacks import CONTEXT, MAX_RETRY, MESSAGE_TYPE
from router.domain.policy.kinds import Choice, Free, Int, Report, Text
from router.domain.policy.model import Extension
from router.domain.policy.tables import Field, Nested, Row, Table, written
from router.domain.policy.vocabulary import OnFail

MAX_OF_A_KIND: Final = 5
MAX_EXTENSIONS: Final = 10


class Mode(StrEnum):
    """Whether a request fails if its `pre` or `post` extension fails, or continues without it."""

    REQUIRED = "required"
    OPTIONAL = "optional"


ID = Field(
    "id",
    Text(pattern="[A-Za-z0-9_-]{1,128}", what="an extension id: 1 to 128 of A-Z a-z 0-9 _ -"),
    "The extension's id; its subject is beamline.ext.<kind>.<id>.v1.",
)
MODE = Field(
    "mode",
    Choice(Mode),
    "required: if the extension fails, the request fails. optional: the request continues without it.",
    Mode.REQUIRED,
)
ON_FAIL = Field(
    "on_fail",
    Choice(OnFail),
    "If the validator rejects the request or fails: block refuses the request, warn adds a warning to the decision, "
    "ignore does nothing.",
    OnFail.BLOCK,
)


def _build_when(row: Row) -> JsonObject:
    return written(MESSAGE_TYPE.entry(row[MESSAGE_TYPE]), CONTEXT.entry(row[CONTEXT]))


WHEN: Field[JsonObject] = Field(
    "when",
    Nested[JsonObject](Table("when", (MESSAGE_TYPE, CONTEXT)), _build_when, lambda when: when),
    "The requests that call it; absent: all.",
    {},
)
CONFIG: Field[JsonObject] = Field("config", Free(), "Your own settings; sent with every call.", {})
TIMEOUT = Field("timeout_ms", Int(minimum=10, maximum=5000), "The longest duration of one call, in ms.", 1000)
RETRY = Field("retry", Int(minimum=0, maximum=MAX_RETRY), "The number of retries after a failed call.", 0)
_REQUIRED = {Mode.REQUIRED: True, Mode.OPTIONAL: False}


def _build_step(row: Row) -> Extension:
    return Extension(
        id=row[ID],
        required=_REQUIRED[row[MODE]],
        on_fail=OnFail.IGNORE,
        when=row[WHEN],
        config=row[CONFIG],
        timeout_ms=row[TIMEOUT],
        retry=row[RETRY],
    )


def _build_validator(row: Row) -> Extension:
    return Extension(
        id=row[ID],
        required=False,
        on_fail=row[ON_FAIL],
        when=row[WHEN],
        config=row[CONFIG],
        timeout_ms=row[TIMEOUT],
        retry=row[RETRY],
    )


def _unbuild_step(e: Extension) -> JsonObject:
    return written(ID.entry(e.id), MODE.entry(Mode.REQUIRED if e.required else Mode.OPTIONAL), *_shared(e))


def _unbuild_validator(e: Extension) -> JsonObject:
    return written(ID.entry(e.id), ON_FAIL.entry(e.on_fail), *_shared(e))


def _shared(e: Extension) -> tuple[tuple[str, JsonValue] | None, ...]:
    return WHEN.entry(e.when), CONFIG.entry(e.config), TIMEOUT.entry(e.timeout_ms), RETRY.entry(e.retry)


_STEP = Nested(Table("an extension", (ID, MODE, WHEN, CONFIG, TIMEOUT, RETRY)), _build_step, _unbuild_step)
_VALIDATOR = Nested(
    Table("a validator", (ID, ON_FAIL, WHEN, CONFIG, TIMEOUT, RETRY)), _build_validator, _unbuild_validator
)

PRE = Field("pre", ListOf(_STEP, MAX_OF_A_KIND), "Extensions that are called before the decision, in order.", ())
VALIDATORS = Field(
    "validators",
    ListOf(_VALIDATOR, MAX_OF_A_KIND),
    "Extensions that accept or reject a request; called after `pre`, all at once.",
    (),
)
POST = Field("post", ListOf(_STEP, MAX_OF_A_KIND), "Extensions that are called after the decision, in order.", ())


def check_extensions(kinds: list[tuple[Extension, ...] | None], report: Report) -> None:
    """Refuse a pipeline with too many extensions, because each adds its duration to the answer."""
    count = sum(len(extensions) for extensions in kinds if extensions)
    if count > MAX_EXTENSIONS:
        message = f"pre, validators and post have {count} extensions together, but at most {MAX_EXTENSIONS} are allowed"
        report.problem("", message=message)
