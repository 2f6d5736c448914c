"""The roles of the admin surface, and the holders of tokens."""

from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """The rights of a token. Each role includes all rights of those with a smaller number.

    A viewer reads, an operator also pulls levers, and an admin also writes policies.
    """

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The word in settings, replies and audit entries."""
        return self.name.lower()


class Holder(Struct, frozen=True):
    """The holder of a token: principal and role."""

    principal: str
    role: Role
