"""Settings as rows for `router config` and docs/REFERENCE.md, without secrets."""

from pathlib import Path

from msgspec import Struct
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from router.redaction import HIDDEN, address
from router.settings.environment import is_secret, unit_of, variable
from router.settings.groups import GROUPS, Settings
from router.settings.types import Unit, in_words


class Row(Struct, frozen=True):
    """A setting. `value` and `default` are texts as the variable would hold them; empty: not set.

    `changed`: it is set to something other than the default.
    """

    group: str
    variable: str
    value: str
    default: str
    unit: str
    secret: bool
    description: str
    changed: bool


def effective(settings: Settings) -> list[Row]:
    """All settings with their effective values; secrets and credentials in URLs are masked."""
    return [_row(group.__doc__ or "", field=f, settings=settings) for group in GROUPS for f in group.__annotations__]


def reference() -> list[Row]:
    """All settings with their defaults; the same on every machine."""
    return effective(Settings.model_construct(pod_name="", _fields_set=set()))


def _row(group: str, *, field: str, settings: Settings) -> Row:
    info = Settings.model_fields[field]
    unit = unit_of(info)
    value, default = _text(getattr(settings, field), unit), _default(info, unit)
    return Row(
        group=group,
        variable=variable(field),
        value=value,
        default=default,
        unit=unit.name if unit else "",
        secret=is_secret(info),
        description=info.description or "",
        changed=field in settings.model_fields_set and value != default,
    )


def _default(info: FieldInfo, unit: Unit | None) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "default_text" in extra:
        return str(extra["default_text"])
    return _text(info.default, unit)


def _text(value: object, unit: Unit | None = None) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case SecretStr():
            return HIDDEN
        case tuple():
            return ",".join(map(_text, value))
        case Path() | str():
            return address(str(value)) if "://" in str(value) else str(value)
        case _:
            return in_words(value, unit)
