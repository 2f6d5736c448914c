"""Roles of the admin surface, and their holders."""

from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """Roles; a greater one includes all rights of a smaller one.

    A viewer reads, an operator pulls levers, an admin writes policies too.
    """

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The word in settings, replies and the audit."""
        return self.name.lower()


class Holder(Struct, frozen=True):
    """The holder of a token: principal and role."""

    principal: str
    role: Role
