"""The fields of an admin act's body: read one by one, and what is wrong with them is told all at once."""

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import DEFAULT_POLICY_ID
from router.errors import InvalidInput
from router.wire import fields as kinds
from router.wire.problems import Problems, named


class ActFields:
    """Reads a body. What it answers counts only after `check`: a field that is wrong reads as nothing until then."""

    def __init__(self, fields: JsonObject) -> None:
        self._fields = fields
        self._found = Problems()

    def check(self) -> None:
        """To be called when all fields are read, and before anything is done.

        :raises InvalidInput: some are wrong or missing; with every problem.
        """
        if self._found:
            raise InvalidInput([problem for _, problem in self._found])

    def tenant(self) -> str:
        """The tenant that the body must name."""
        return kinds.name(self._found, "tenant_id", self._there("tenant_id")) or ""

    def any_tenant(self) -> str | None:
        """The tenant that it may name."""
        return kinds.name(self._found, "tenant_id", self._fields.get("tenant_id"))

    def policy(self) -> str:
        """The policy that it may name, else the usual one."""
        return kinds.name(self._found, "policy_id", self._fields.get("policy_id")) or DEFAULT_POLICY_ID

    def named_policy(self) -> str:
        """The policy that it must name."""
        return kinds.name(self._found, "policy_id", self._there("policy_id")) or ""

    def needed(self, field: str) -> str:
        """A text that it must have."""
        self._there(field)
        return self.text(field) or ""

    def text(self, field: str) -> str | None:
        """A text that it may have."""
        value = self._fields.get(field)
        if value is None or isinstance(value, str):
            return value
        self._found.add(field, f"is {named(value)}", "a string")
        return None

    def flag(self, field: str) -> bool:
        """A switch that it may have: true or false, and no word for one."""
        return kinds.flag(self._found, field, self._fields.get(field))

    def revision(self, field: str = "expect_revision") -> int | None:
        """A revision that it may have."""
        return kinds.whole(self._found, field, self._fields.get(field), 0, 2**53)

    def needed_revision(self, field: str) -> int:
        """A revision that it must have."""
        self._there(field)
        return self.revision(field) or 0

    def document(self, field: str) -> JsonObject:
        """An object that it must have."""
        return kinds.table(self._found, field, self._there(field)) or {}

    def _there(self, field: str) -> JsonValue:
        value = self._fields.get(field)
        if value is None:
            self._found.add(field, "is missing")
        return value
