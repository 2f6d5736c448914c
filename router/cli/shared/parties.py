"""Which party each command needs: one table for REFERENCE.md and for the test that runs each under those rights."""

from msgspec import Struct

from router.domain.access import Party


class Needs(Struct, frozen=True):
    """The party with the least rights that a command needs, and the servers that it uses. None: it needs no rights."""

    party: Party | None = None
    redis: bool = False
    nats: bool = False

    @property
    def servers(self) -> str:
        """The servers in words."""
        return ", ".join(name for name, used in (("Redis", self.redis), ("NATS", self.nats)) if used)


_READS = Needs(Party.VIEWER, redis=True)
_PULLS = Needs(Party.OPERATOR, redis=True)
_WRITES = Needs(Party.ADMIN, redis=True, nats=True)
_NO_SERVER = Needs()

COMMANDS: dict[str, Needs] = {
    "local": _NO_SERVER,
    "serve": Needs(Party.POD, redis=True, nats=True),
    "decide": Needs(Party.CALLER, nats=True),
    "explain": _READS,
    "explain --dry-run": Needs(Party.VIEWER, nats=True),
    "policy check": _NO_SERVER,
    "policy schema": _NO_SERVER,
    "policy apply": _WRITES,
    "policy show": _READS,
    "policy list": _READS,
    "policy history": _READS,
    "policy rollback": _WRITES,
    "policy delete": _WRITES,
    "provider list": _READS,
    "provider drain": _PULLS,
    "provider enable": _PULLS,
    "breaker list": _READS,
    "breaker force-open": _PULLS,
    "breaker reset": _PULLS,
    "tenant list": _READS,
    "tenant show": _READS,
    "tenant enable": _PULLS,
    "tenant disable": _PULLS,
    "tenant purge": _WRITES,
    "idempotency forget": _PULLS,
    "audit query": _READS,
    "audit tail": _READS,
    "audit stats": _READS,
    "audit unknown": _READS,
    "audit export": _READS,
    "usage tail": Needs(Party.VIEWER, nats=True),
    "usage reconcile": Needs(Party.VIEWER, redis=True, nats=True),
    "dlq list": Needs(Party.VIEWER, nats=True),
    "dlq show": Needs(Party.VIEWER, nats=True),
    "dlq redrive": Needs(Party.OPERATOR, nats=True),
    "alerts": Needs(Party.VIEWER, nats=True),
    "gate": _NO_SERVER,
    "worker": Needs(Party.WORKER, nats=True),
    "selftest": Needs(Party.ADMIN, redis=True, nats=True),
    "key create": _NO_SERVER,
    "key list": _NO_SERVER,
    "key revoke": _NO_SERVER,
    "acl redis": _NO_SERVER,
    "acl nats": _NO_SERVER,
    "acl sentinel": _NO_SERVER,
    "config": _NO_SERVER,
    "version": _NO_SERVER,
}
