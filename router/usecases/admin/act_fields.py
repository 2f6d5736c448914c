"""The fields of an admin act's body: read field by field; all problems are reported at once."""

from collections.abc import Collection

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import DEFAULT_POLICY_ID
from router.errors import InvalidInput
from router.wire import fields as kinds
from router.wire.problems import Problems, named

MAX_PAGE = 1_000


class ActFields:
    """Reads a body. Until `check` has passed, a value may be the empty stand-in of a wrong or missing field.

    `declared` are the fields of the act; to read another one is a bug and raises KeyError.
    """

    def __init__(self, fields: JsonObject, declared: Collection[str]) -> None:
        self._fields = fields
        self._declared = declared
        self._problems = Problems()

    def check(self) -> None:
        """Call this after reading all fields and before acting on any.

        :raises InvalidInput: fields are wrong or missing; with every problem.
        """
        if self._problems:
            raise InvalidInput([problem for _, problem in self._problems])

    def tenant(self) -> str:
        """The required tenant."""
        return kinds.identifier(self._problems, "tenant_id", self._required("tenant_id")) or ""

    def optional_tenant(self) -> str | None:
        """The tenant, if the body names one."""
        return kinds.identifier(self._problems, "tenant_id", self._value("tenant_id"))

    def policy(self) -> str:
        """The policy, or the default one if the body names none."""
        return kinds.identifier(self._problems, "policy_id", self._value("policy_id")) or DEFAULT_POLICY_ID

    def required_policy(self) -> str:
        """The required policy."""
        return kinds.identifier(self._problems, "policy_id", self._required("policy_id")) or ""

    def required_text(self, field: str) -> str:
        """A required string."""
        self._required(field)
        return self.text(field) or ""

    def text(self, field: str) -> str | None:
        """An optional string."""
        value = self._value(field)
        if value is None or isinstance(value, str):
            return value
        self._problems.add(field, message=f"is {named(value)}", hint="a string")
        return None

    def flag(self, field: str) -> bool:
        """An optional switch: JSON true or false, never a string."""
        return kinds.boolean(self._problems, field, self._value(field))

    def revision(self, field: str) -> int | None:
        """An optional revision."""
        return kinds.whole_number(self._problems, field, self._value(field), minimum=0, maximum=2**53)

    def required_revision(self, field: str) -> int:
        """A required revision."""
        self._required(field)
        return self.revision(field) or 0

    def document(self, field: str) -> JsonObject:
        """A required JSON object."""
        return kinds.json_object(self._problems, field, self._required(field)) or {}

    def whole(self) -> JsonObject:
        """The whole body, for an act that decodes it itself."""
        return self._fields

    def cursor(self) -> str:
        """The key after which a page begins; empty for the first page."""
        cursor = self._value("cursor")
        if isinstance(cursor, str):
            return cursor
        if cursor is not None:
            self._problems.add("cursor", message="is not a string", hint="take it from the previous page")
        return ""

    def limit(self) -> int:
        """The number of items on a page, at most and by default 1,000."""
        limit = self._value("limit")
        if isinstance(limit, int) and not isinstance(limit, bool) and 1 <= limit <= MAX_PAGE:
            return limit
        if limit is not None:
            self._problems.add(
                "limit", message=f"is not a number from 1 to {MAX_PAGE:,}", hint="ask for the next page by its cursor"
            )
        return MAX_PAGE

    def _value(self, field: str) -> JsonValue:
        if field not in self._declared:
            raise KeyError(f"the act does not declare the field {field}")
        return self._fields.get(field)

    def _required(self, field: str) -> JsonValue:
        value = self._value(field)
        if value is None:
            self._problems.add(field, message="is missing")
        return value
