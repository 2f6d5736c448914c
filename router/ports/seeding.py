"""Seeding an empty store from a folder of policy files.

The mark of a complete seed is written last. If a pod crashes before it, any pod starts the seed again; if the store
loses its data, the mark is lost too, so the store is seeded again (`usecases.policies.seed`).
"""

from typing import Protocol

from msgspec import Struct

from router.errors import Problem
from router.ports.policy_records import PolicyRecords


class SeedStore(PolicyRecords, Protocol):
    """The policy store, with its mark of a complete seed."""

    async def seeded(self) -> bool:
        """Return whether the seed is complete. It is False again after the store has lost its data.

        :raises StoreError: Redis did not answer.
        """

    async def mark_seeded(self) -> None:
        """Mark the seed as complete.

        :raises StoreError: Redis did not answer.
        """


class Meta(Protocol):
    """The store's own record (partition count and ids): the first key that is written to a store."""

    async def ensure(self) -> bool:
        """Write the record if it does not exist, and compare it with this pod's settings. Returns whether it was new.

        :raises StartupRefused: the record contradicts this pod's settings.
        :raises StoreError: Redis did not answer.
        """


class BadFile(Struct, frozen=True):
    """A file that is not a valid policy, with all of its problems."""

    name: str
    problems: tuple[Problem, ...]


class SeedReport(Struct, frozen=True, kw_only=True):
    """The result of reading the folder.

    - `written`: names of the policies that were written.
    - `kept`: names of the policies that were left as they were.
    - `bad`: invalid files.
    """

    written: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    bad: tuple[BadFile, ...] = ()


class SeedHooks(Protocol):
    """Receives the events of the seed guard, on the event loop. Implementations must be quick and must not raise."""

    def reseeded(self, report: SeedReport) -> None:
        """A seeded store has lost its data and was seeded again."""

    def seeded(self, report: SeedReport) -> None:
        """Policies were written to the store, at boot or after a file changed."""

    def store_unavailable(self, why: str) -> None:
        """The store did not answer. The guard will retry."""
