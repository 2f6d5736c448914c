"""The exceptions of this package. Expected answers are values (`domain.decide.decision`).

RouterError
├── InvalidInput          a document or request is invalid; lists every problem
├── StoreError            an operation on Redis failed
│   ├── StoreUnavailable  nothing was executed: not connected, breaker open, or refused before sending
│   │   └── StoreLoginRefused  Redis does not accept the login
│   ├── StoreForbidden    Redis does not offer the command to this user: by ACL, renamed, or unknown
│   ├── OutcomeUnknown    sent, but not answered in time: it may have been executed
│   │   └── NotReplicated  executed, but too few replicas have confirmed it
│   ├── LoadsFull         not asked: as many tenants wait for their policies as may
│   └── StoreDamaged      a key has the wrong type or format: a retry does not help
├── BusError              an operation on NATS failed
│   ├── PermissionRefused the user may not publish or subscribe to a subject
│   └── LoginRefused      NATS does not accept the login
├── ExportFailed          an audit sink did not store the entries
├── PodUnavailable        a pod did not answer over HTTP
├── RevisionConflict      a compare-and-set failed: the policy has changed
├── QuotaExceeded         a tenant's policies would exceed a quota
└── StartupRefused        this pod must not run with these settings against this store
"""

from dataclasses import dataclass, field


class RouterError(Exception):
    """The base of all exceptions that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of an input: the field (`path` "": the whole input), what is wrong, and how to fix it."""

    path: str
    message: str = field(kw_only=True)
    hint: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" ({self.hint})" if self.hint else "")


class InvalidInput(RouterError):
    """The input is invalid. `problems` lists every problem and is never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class StoreError(RouterError):
    """Redis did not execute the operation."""


class StoreUnavailable(StoreError):
    """Nothing was executed."""


class StoreLoginRefused(StoreUnavailable):
    """Redis does not accept the login of this user. A password may be on its way: pods try again."""


class StoreForbidden(StoreError):
    """Redis does not offer a command to this user. A retry does not help before an operator acts."""


class LoadsFull(StoreError):
    """The store was not asked: as many tenants wait for their policies as may."""


class OutcomeUnknown(StoreError):
    """The operation may have been executed."""


class NotReplicated(OutcomeUnknown):
    """The operation was executed, but fewer replicas than ROUTER_WAIT_REPLICAS have confirmed it in time."""


class StoreDamaged(StoreError):
    """A key has the wrong type or format. Other keys are not affected."""


class BusError(RouterError):
    """NATS did not execute the operation."""


class PermissionRefused(BusError):
    """The server does not permit the user to publish or subscribe to a subject; the message names it."""


class LoginRefused(BusError):
    """The server does not accept the login of this user."""


class PodUnavailable(RouterError):
    """A pod did not answer over HTTP."""


class RevisionConflict(RouterError):
    """A compare-and-set failed. `current`: the stored revision; 0: the policy does not exist."""

    def __init__(self, current: int) -> None:
        message = (
            f"the store is at revision {current}: read the policy again and repeat the change"
            if current
            else "there is no such policy"
        )
        super().__init__(message)
        self.current = current


class QuotaExceeded(RouterError):
    """The tenant would have `would_be` of `quota` (policies, providers or rules), more than `maximum`.

    Nothing was written.
    """

    def __init__(self, quota: str, would_be: int, *, maximum: int) -> None:
        setting = f"ROUTER_QUOTA_{quota.upper()}"
        super().__init__(f"quota_exceeded: the tenant would have {would_be} {quota}, at most {maximum} ({setting})")
        self.quota = quota
        self.would_be = would_be
        self.maximum = maximum


class StartupRefused(RouterError):
    """The settings contradict the store or each other. The message names the settings and the fix."""


class ExportFailed(RouterError):
    """An audit sink did not store the entries. They stay in the log and are exported again later."""
