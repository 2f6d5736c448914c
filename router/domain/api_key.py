"""Who asks over HTTP: the holders of API keys, their roles and their tenants."""

from enum import StrEnum

from msgspec import Struct


class ApiRole(StrEnum):
    """The rights of an API key."""

    CALLER = "caller"
    """Asks for decisions, and looks up those of its tenants."""
    VIEWER = "viewer"
    """Reads."""
    OPERATOR = "operator"
    """A viewer who also pulls levers."""
    ADMIN = "admin"
    """May do everything, asking for decisions included."""

    @property
    def may_ask(self) -> bool:
        """Whether the holder may ask for decisions."""
        return self in (ApiRole.CALLER, ApiRole.ADMIN)


class Asker(Struct, frozen=True):
    """Who sends a request. `tenants` None: every tenant."""

    principal: str
    role: ApiRole
    tenants: frozenset[str] | None = None


class ApiKey(Struct, frozen=True):
    """An API key without its secret. `digest`: SHA-256 of the whole key."""

    id: str
    digest: bytes
    asker: Asker


ANYBODY = Asker("anybody", ApiRole.ADMIN)
"""Who asks where the API needs no key."""
