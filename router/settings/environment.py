"""Reading of the settings from environment variables; no other module of this package reads them.

A variable is `ROUTER_` and the field's name in capitals. A duration has its unit in the value (`ROUTER_CP_GRACE=60s`)
and not in the name. A secret may come from a file instead: `ROUTER_ADMIN_TOKEN_FILE=/run/secrets/admin`. An empty
variable counts as not set. Any other `ROUTER_…` variable is refused, except those that Kubernetes injects for Services
called `router` or `router-…`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from router.errors import InvalidInput, Problem
from router.settings.checks import contradictions
from router.settings.groups import Settings
from router.settings.types import ExistingFile, Unit, in_words

PREFIX = "ROUTER_"
_FILE = "_FILE"
_PROTOCOL = "(?:TCP|UDP|SCTP)"
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_INJECTED_NAME = re.compile(
    rf"ROUTER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_{_PROTOCOL}(?:_(?:PROTO|PORT|ADDR))?)"
)
_INJECTED_PORT_VALUE = re.compile(r"(?:tcp|udp|sctp)://")


def unit_of(info: FieldInfo) -> Unit | None:
    """The unit of a field's type; an optional type has it inside its union."""
    marks = [*info.metadata]
    for part in get_args(info.annotation):
        marks.extend(getattr(part, "__metadata__", ()))
    return next((m for m in marks if isinstance(m, Unit)), None)


def is_secret(info: FieldInfo) -> bool:
    """Whether the value must never be shown."""
    return SecretStr in get_args(info.annotation)


@cache
def variable(field: str) -> str:
    """The environment variable of a field."""
    unit = unit_of(Settings.model_fields[field])
    name = field.removesuffix(f"_{unit.name}") if unit is not None and unit.is_duration else field
    return PREFIX + name.upper()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    :raises InvalidInput: with every problem found, each naming its variable and what to change.
    """
    settings, problems = read(environ)
    if problems:
        raise InvalidInput(problems)
    return settings


def read(environ: Mapping[str, str] | None = None) -> tuple[Settings, list[Problem]]:
    """The settings of this process, and every problem, by variable. A setting with a problem has its default."""
    values, problems = _read(os.environ if environ is None else environ)
    bad = {p.path for p in problems}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as e:
        for error in e.errors(include_url=False, include_input=False):
            field = str(error["loc"][0])
            if error["type"] == "too_short" and field not in values:
                continue  # A list is reported as short too when an item of it is bad.
            problems.append(_explain(field, error))
            bad.add(variable(field))
            values.pop(field, None)
        # The remaining values are valid alone. They are checked for contradictions too, so that one run reports all.
        settings = Settings.model_validate(values)
    for fields, message in contradictions(settings):
        names = [variable(f) for f in fields]
        if bad.isdisjoint(names):
            hint = f"see also {', '.join(names[1:])}" if names[1:] else ""
            problems.append(Problem(names[0], message=message, hint=hint))
    return settings, sorted(problems, key=lambda p: p.path)


def mounted_files(settings: Settings, environ: Mapping[str, str] | None = None) -> dict[str, Path]:
    """The files that these settings were read from, or name, by field: secrets, credentials, certificates and keys."""
    environ = os.environ if environ is None else environ
    files: dict[str, Path] = {}
    for field, info in Settings.model_fields.items():
        if is_secret(info) and (path := environ.get(variable(field) + _FILE)):
            files[field] = Path(path)
        elif ExistingFile in get_args(info.annotation):
            value = getattr(settings, field)
            if value is not None:
                files[field] = Path(value)
    return files


def _read(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    by_variable = {variable(f): f for f in Settings.model_fields}
    by_file = {variable(f) + _FILE: f for f, info in Settings.model_fields.items() if is_secret(info)}
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for name, value in _ours(environ):
        if name in by_variable:
            values[by_variable[name]] = value
        elif name in by_file:
            field = by_file[name]
            if environ.get(variable(field)):
                problems.append(Problem(name, message=f"{variable(field)} is also set", hint="set only one of the two"))
                continue
            secret = _secret(name, path=value)
            if isinstance(secret, Problem):
                problems.append(secret)
            else:
                values[field] = secret
        else:
            problems.append(
                Problem(name, message="there is no such setting", hint=_did_you_mean(name, [*by_variable, *by_file]))
            )
    return values, problems


def _secret(name: str, *, path: str) -> str | Problem:
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeError) as e:
        return Problem(name, message=f"the file cannot be read: {e}", hint="give the path of a readable text file")
    return text or Problem(name, message=f"the file {path} is empty", hint="write the secret into it")


def _ours(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if not name.startswith(PREFIX) or _INJECTED_NAME.fullmatch(name):
            continue
        if name.endswith("_PORT") and _INJECTED_PORT_VALUE.match(value):
            continue
        if value:
            yield name, value


def _did_you_mean(name: str, known: list[str]) -> str:
    # Compared without the common prefix, which would make all names similar.
    close = get_close_matches(name.removeprefix(PREFIX), [k.removeprefix(PREFIX) for k in known], n=1, cutoff=0.7)
    return f"did you mean {PREFIX}{close[0]}?" if close else "remove it; `router config` lists all settings"


_MESSAGES = {
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} items",
}


def _explain(field: str, error: ErrorDetails) -> Problem:
    """The problem, with the variable's name and without the value, which may be secret."""
    info = Settings.model_fields[field]
    message = _MESSAGES.get(error["type"])
    if message is None:
        return Problem(variable(field), message=error["msg"].removeprefix("Value error, "))
    context = {name: in_words(value, unit_of(info)) for name, value in error.get("ctx", {}).items()}
    return Problem(variable(field), message=message.format(**context))
