"""Seeding an empty store from a folder of policies: the store's side, and the reports."""

from typing import Protocol

from msgspec import Struct

from router.errors import Problem
from router.ports.policy_records import PolicyRecords


class SeedStore(PolicyRecords, Protocol):
    """The policy store, with the mark of a complete seed."""

    async def seeded(self) -> bool:
        """Whether the seed is complete; False again when the store has lost its data.

        :raises StoreError: Redis did not answer.
        """

    async def mark_seeded(self) -> None:
        """Mark the seed as complete.

        :raises StoreError: Redis did not answer.
        """


class Meta(Protocol):
    """The store's own record (partition count, ids): the first key in a store."""

    async def ensure(self) -> bool:
        """Write the record if it is absent, and check it against this pod. True: it was absent.

        :raises StoreError: Redis did not answer.
        """


class BadFile(Struct, frozen=True):
    """A file that is not a valid policy, with every problem in it."""

    name: str
    problems: tuple[Problem, ...]


class SeedReport(Struct, frozen=True):
    """The result of reading the files: names written, names left as they were, and invalid files."""

    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()


class SeedHooks(Protocol):
    """Events of the seed guard. Called on the event loop; must be quick and must not raise."""

    def reseeded(self, report: SeedReport) -> None:
        """A store that had been seeded was found empty, and was seeded again."""

    def seeded(self, report: SeedReport) -> None:
        """Files were written to the store, at boot or after a change."""

    def away(self, why: str) -> None:
        """The store did not answer; the guard tries again."""
