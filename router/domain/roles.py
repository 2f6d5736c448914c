"""Roles of the admin surface, and who has one."""

from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """Who may do what; a greater one may all that a lesser one may.

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
    """Somebody who has shown a token."""

    principal: str
    role: Role
