"""Metrics of the store: calls, memory and keys."""

from collections.abc import Iterable

from router.telemetry.families import Families
from router.telemetry.metrics.bounds import LATENCY, ROWS


class StoreMetrics:
    """Counted by `store.decide`, `usecases.sampling` and the pod's observers."""

    def _store(self, families: Families, store_kinds: Iterable[str]) -> None:
        self.batch_rows = families.histogram(
            "batch_rows", documentation="Decide rows in one store call.", bounds=ROWS
        ).child()
        self.store_call_seconds = families.histogram(
            "store_call_seconds",
            documentation="Duration of one script call, from send to reply or deadline.",
            bounds=LATENCY,
            labels=("script",),
        )
        self.store_timeouts = families.counter(
            "store_timeouts", documentation="Store calls without a reply by their deadline."
        )
        self.store_errors = families.counter("store_errors", documentation="Store calls that failed for other reasons.")
        self.store_unconfirmed = families.counter(
            "store_unconfirmed",
            documentation="Calls that too few replicas (ROUTER_WAIT_REPLICAS) confirmed in time; `confirm`: a read.",
            labels=("script",),
        )
        self.store_late_rows = families.counter(
            "store_late_rows", documentation="Rows that reached the store after their not_after."
        )
        self.store_clock_steps = families.counter(
            "store_clock_steps",
            documentation="Steps of Redis' clock by more than a second against this pod's: forward, back.",
            labels=("direction",),
        )
        self.store_row_faults = families.counter(
            "store_row_faults", documentation="Rows that the script could not run."
        )
        self.store_breaker_open = families.gauge(
            "store_breaker_open", documentation="1 while the store counts as unavailable or refuses calls."
        )
        self.store_reseeded = families.counter(
            "store_reseeded", documentation="Times that an empty store was found and seeded again."
        )
        self.store_memory_share = families.gauge(
            "store_memory_share",
            documentation="Used memory as a share of maxmemory, on the fullest node; 0 without maxmemory; NaN if INFO "
            "is blocked.",
        )
        self.store_keys = families.gauge(
            "store_keys",
            documentation="Keys of each kind, estimated from a sample by the leading pod; 0 on the others.",
            labels=("kind",),
        )
        self.store_key_bytes = families.gauge(
            "store_key_bytes",
            documentation="Bytes of the keys of each kind in Redis, estimated like router_store_keys.",
            labels=("kind",),
        )
        self.store_sampled_share = families.gauge(
            "store_sampled_share", documentation="Sampled keys as a share of all keys; 0 on pods that do not lead."
        )
        for kind in store_kinds:
            self.store_keys.labels(kind)
            self.store_key_bytes.labels(kind)
        self.audit_deferred = families.gauge(
            "audit_deferred", documentation="Audit records of degraded decisions that wait for the store."
        )
