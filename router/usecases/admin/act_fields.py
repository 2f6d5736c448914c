"""The fields of an admin act's body: read field by field; all problems are reported at once."""

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import DEFAULT_POLICY_ID
from router.errors import InvalidInput
from router.wire import fields as kinds
from router.wire.problems import Problems, named


class ActFields:
    """Reads a body. Until `check` has passed, a value may be the empty stand-in of a wrong or missing field."""

    def __init__(self, fields: JsonObject) -> None:
        self._fields = fields
        self._problems = Problems()

    def check(self) -> None:
        """Call this after reading all fields and before acting on any.

        :raises InvalidInput: fields are wrong or missing; with every problem.
        """
        if self._problems:
            raise InvalidInput([problem for _, problem in self._problems])

    def tenant(self) -> str:
        """The required tenant."""
        return kinds.name(self._problems, "tenant_id", self._required("tenant_id")) or ""

    def optional_tenant(self) -> str | None:
        """The tenant, if the body names one."""
        return kinds.name(self._problems, "tenant_id", self._fields.get("tenant_id"))

    def policy(self) -> str:
        """The policy, or the default one if the body names none."""
        return kinds.name(self._problems, "policy_id", self._fields.get("policy_id")) or DEFAULT_POLICY_ID

    def required_policy(self) -> str:
        """The required policy."""
        return kinds.name(self._problems, "policy_id", self._required("policy_id")) or ""

    def required_text(self, field: str) -> str:
        """A required string."""
        self._required(field)
        return self.text(field) or ""

    def text(self, field: str) -> str | None:
        """An optional string."""
        value = self._fields.get(field)
        if value is None or isinstance(value, str):
            return value
        self._problems.add(field, f"is {named(value)}", "a string")
        return None

    def flag(self, field: str) -> bool:
        """An optional switch: JSON true or false, never a string."""
        return kinds.flag(self._problems, field, self._fields.get(field))

    def revision(self, field: str = "expect_revision") -> int | None:
        """An optional revision."""
        return kinds.whole(self._problems, field, self._fields.get(field), 0, 2**53)

    def required_revision(self, field: str) -> int:
        """A required revision."""
        self._required(field)
        return self.revision(field) or 0

    def document(self, field: str) -> JsonObject:
        """A required JSON object."""
        return kinds.table(self._problems, field, self._required(field)) or {}

    def _required(self, field: str) -> JsonValue:
        value = self._fields.get(field)
        if value is None:
            self._problems.add(field, "is missing")
        return value
