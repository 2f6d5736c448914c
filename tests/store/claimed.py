"""A decision that was claimed and is not finished."""

from msgspec.structs import replace

from router.domain.decide.outcome import Admitted, StoredAnswer
from router.domain.decide.plan import Plan
from router.domain.ids import RANDOM_BYTES, name_in
from router.store.packing import remembered
from router.store.scripts.load import load
from tests.store.harness import Ask, Store, policy, request

PLAIN = policy("a", "b")
COMPLETE = load(
    "complete",
    keys=("idem", "claim"),
    argv=("random", "claim_id", "metadata"),
    returns={0: "done", 1: "gone"},
)
ABANDON = load("abandon", keys=("idem", "claim"), argv=("random", "claim_id"), returns={0: "let_go", 1: "busy"})


class Unfinished(Ask):
    """A row whose decision is to be finished later."""

    @property
    def plan(self) -> Plan:
        return replace(super().plan, unfinished=True)


class Begun:
    """A request that was claimed and decided, and is not finished."""

    def __init__(self, store: Store) -> None:
        self.store, self.tenant = store, store.tenant()
        self.request = request(self.tenant, "r")
        previewed = store.preview(self.request, PLAIN, claim_ms=60_000)
        (made,) = store.decide(Unfinished(self.request, PLAIN))
        assert isinstance(previewed, Admitted)
        assert isinstance(made, Admitted)
        self.claim, self.decision = previewed.decision_id, made.decision_id
        keys = store.of(self.tenant)
        self.partition, self.name = keys.partition, name_in(self.decision)
        self.keys = [keys.idem(self.name), keys.claim(self.name)]

    def kept(self) -> StoredAnswer | None:
        """What is remembered."""
        raw = self.store.value(self.keys[0])
        return None if raw is None else remembered(raw, self.partition, self.name)

    def complete(self, metadata: bytes = b"", decision: bytes | None = None) -> int:
        """Finish it."""
        random = (decision or self.decision)[-RANDOM_BYTES:]
        (code,) = self.store.call(COMPLETE, self.keys, [random, self.claim, metadata])
        return int(code)

    def abandon(self, claim: bytes | None = None, random: bytes | None = None) -> int:
        """Forget it."""
        named = self.decision[-RANDOM_BYTES:] if random is None else random
        (code,) = self.store.call(ABANDON, self.keys, [named, claim or self.claim])
        return int(code)
