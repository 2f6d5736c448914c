"""The first fill of an empty store from a folder of policies: the store's side, and what is reported of it."""

from typing import Protocol

from msgspec import Struct

from router.errors import Problem
from router.ports.policy_records import PolicyRecords


class SeedStore(PolicyRecords, Protocol):
    """The store of policies, with the mark of a complete seed."""

    async def seeded(self) -> bool:
        """Whether the seed is complete; False again when the store lost its data.

        :raises StoreError: the store did not answer.
        """

    async def mark_seeded(self) -> None:
        """The seed is complete.

        :raises StoreError: the store did not answer.
        """


class Meta(Protocol):
    """The store's own record (`P`, ids): the first thing in it."""

    async def ensure(self) -> bool:
        """Write it if it is not there, and check it against this pod. True: it was not there.

        :raises StoreError: the store did not answer.
        """


class BadFile(Struct, frozen=True):
    """A file that is not a policy, and everything that is wrong with it."""

    name: str
    problems: tuple[Problem, ...]


class SeedReport(Struct, frozen=True):
    """What came of the files: names written, names left as they were, and those that are no policies."""

    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()


class SeedHooks(Protocol):
    """What the guard reports. Called on the event loop; must be quick and must not raise."""

    def reseeded(self, report: SeedReport) -> None:
        """A store that had been seeded was found empty, and is seeded again."""

    def seeded(self, report: SeedReport) -> None:
        """Files were read into the store (at boot, or after a change)."""

    def away(self, why: str) -> None:
        """The store did not answer; the guard tries again."""
