"""The faults of this package. Expected answers are values (`domain.decision`), not exceptions.

RouterError
├── InvalidInput          a document or request is wrong; carries every problem found
├── StoreError            talking to Redis went wrong
│   ├── StoreUnavailable  nothing was executed: not connected, breaker open, refused before sending
│   ├── OutcomeUnknown    sent, but not answered in time: it may have been executed
│   └── StoreDamaged      a key is not what it must be; to try again does not help
├── BusError              talking to NATS went wrong
├── ExportFailed          a sink of the audit did not take entries
├── PodAway               a pod did not answer over HTTP
├── RevisionConflict      compare-and-set lost: somebody wrote in between
├── QuotaExceeded         a tenant's policies would be above one of its quotas
└── StartupRefused        this pod must not run with these settings against this store
"""

from dataclasses import dataclass


class RouterError(Exception):
    """Every fault that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input: where (a field path, "" for the whole), what, and how to fix it."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidInput(RouterError):
    """The input is wrong; `problems` has all that was found, never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class StoreError(RouterError):
    """Redis did not do what was asked."""


class StoreUnavailable(StoreError):
    """Nothing was executed."""


class OutcomeUnknown(StoreError):
    """It may have been executed."""


class StoreDamaged(StoreError):
    """A key holds something of another kind; nothing else is wrong with the store."""


class BusError(RouterError):
    """NATS did not do what was asked."""


class PodAway(RouterError):
    """A pod did not answer over HTTP."""


class RevisionConflict(RouterError):
    """The compare-and-set lost; `current` is the revision that is there now, 0: none is."""

    def __init__(self, current: int) -> None:
        now = (
            f"the store is at revision {current}: read it again and re-apply" if current else "there is no such policy"
        )
        super().__init__(now)
        self.current = current


class QuotaExceeded(RouterError):
    """`quota` (policies, providers, rules) would be at `would_be`, above `maximum`; nothing was written."""

    def __init__(self, quota: str, would_be: int, maximum: int) -> None:
        setting = f"ROUTER_QUOTA_{quota.upper()}"
        super().__init__(f"quota_exceeded: the tenant would have {would_be} {quota}, at most {maximum} ({setting})")
        self.quota = quota
        self.would_be = would_be
        self.maximum = maximum


class StartupRefused(RouterError):
    """The settings contradict the store or each other; the message says which and what to change."""


class ExportFailed(RouterError):
    """A sink did not take the entries; they are tried again."""
