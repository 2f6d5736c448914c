"""The commands and keys that each party needs in Redis: one table for the printed ACL and for the check at start.

A right that only a part of the pod needs (`Degradable`) never makes the pod unready: the part is off, and `/readyz`
reports it. `tests/store/servers/test_rights.py` compares the table with the commands in the code.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from router.domain.access import Party
from router.domain.degraded import Degradable
from router.store.servers.nodes import Nodes

_CORE = """
ping time evalsha eval get set del unlink exists incr pexpire persist pttl hget hmget hset hsetnx hdel hlen hkeys
hgetall hexists hincrby hscan hrandfield lindex lpush lrange ltrim xadd xinfo|stream xlen xrange xrevrange xtrim zadd
zcard zcount zrange zrangebyscore zrem zremrangebyscore
"""
_PARTS: Mapping[Degradable, str] = {
    Degradable.STORE_FACTS: "info",
    Degradable.STORE_WALKS: "scan dbsize memory|usage getrange",
    Degradable.FUNCTION_LIBRARY: "fcall function|load function|list function|delete",
    Degradable.STATE_RANGES: "setrange",
}
_READS = "ping time evalsha eval get exists hget hkeys hgetall hexists hlen lrange xlen xrange xrevrange zrange"
_LEVERS = "set del unlink pexpire pttl xadd xtrim"
_WRITES = "persist hset hdel hincrby hscan lindex lpush ltrim xinfo|stream zrem"

# redis-py sends it for each connection and ignores a refusal; without it each connection leaves a line in ACL LOG.
_GREETING = "client|setinfo"
_KEYLESS = """
ping time info scan dbsize wait asking select eval evalsha fcall cluster|slots function|load function|list
function|delete
"""


class Server(Struct, frozen=True):
    """The settings of the server that the rights depend on."""

    schema: str = "r1"
    cluster: bool = False
    wait_replicas: bool = False
    database: int = 0


def commands(party: Party, server: Server) -> dict[str, Degradable | None]:
    """The commands of a party, each with the only part that needs it; None: nothing works without it."""
    match party:
        case Party.POD:
            needed = dict.fromkeys(_CORE.split(), None) | {
                c: part for part, listed in _PARTS.items() for c in listed.split()
            }
        case Party.WORKER | Party.CALLER:
            return {}
        case Party.VIEWER | Party.OPERATOR | Party.ADMIN:
            needed = dict.fromkeys(_of_people(party).split(), None)
    found: dict[str, Degradable | None] = {**needed}
    if server.cluster:
        found |= {"cluster|slots": None, "asking": None}
    if server.wait_replicas and party is not Party.VIEWER:
        found["wait"] = None
    if server.database:
        found["select"] = None
    return found


def _of_people(role: Party) -> str:
    seen = f"{_READS} info scan memory|usage"
    if role is Party.VIEWER:
        return seen
    pulled = f"{seen} {_LEVERS}"
    return pulled if role is Party.OPERATOR else f"{pulled} {_WRITES} {_PARTS[Degradable.STORE_WALKS]}"


def key_patterns(schema: str) -> tuple[str, str]:
    """The patterns of every key: remembered answers have no colon behind the schema."""
    return f"{schema}:*", f"{schema}{{*"


def acl_rules(party: Party, server: Server) -> str:
    """The rules of an ACL user, as for ACL SETUSER, without name and password; empty: the party needs nothing."""
    if not commands(party, server):
        return ""
    keys = [f"~{pattern}" for pattern in key_patterns(server.schema)]
    granted = [f"+{c}" for c in sorted({*commands(party, server), _GREETING})]
    return " ".join(["resetkeys", *keys, "resetchannels", "-@all", *granted])


def sentinel_rules() -> str:
    """The rules of a user in the sentinels, for any party that uses Redis."""
    return f"resetkeys resetchannels -@all +{_GREETING} +sentinel|master"


SENTINEL_IN_REDIS = """
resetkeys allchannels -@all +ping +info +role +publish +subscribe +multi +exec +slaveof +config|rewrite +client|setname
+client|kill +script|kill
"""
"""The rules of the sentinels' own user in Redis (https://valkey.io/topics/sentinel)."""
REPLICA_IN_REDIS = "resetkeys resetchannels -@all +ping +psync +replconf"
"""The rules of the replicas' user in the primary."""


class Missing(Struct, frozen=True):
    """Rights that Redis does not give: those that everything needs, and those that only a part needs."""

    needed: tuple[str, ...] = ()
    parts: Mapping[Degradable, tuple[str, ...]] = {}

    @property
    def refusal(self) -> str | None:
        """Why the pod cannot run; None: it can."""
        if not self.needed:
            return None
        return f"Redis does not allow {_listed(self.needed)}; `router acl redis` prints the rights that a pod needs"

    @property
    def functions_work(self) -> bool:
        """Whether function libraries can be loaded and called."""
        return not {"fcall", "function|load"} & set(self.parts.get(Degradable.FUNCTION_LIBRARY, ()))

    def reason(self, part: Degradable) -> str:
        """Why a part is off."""
        return f"Redis does not allow {_listed(self.parts[part])}"


# Asks the server about its own rules. A server that cannot answer (an older one, or another product) counts as allowing
# everything.
_ASK = b"""#!lua
local replies = {}
for i, command in ipairs(ARGV) do
  local words = {}
  for word in command:gmatch('%S+') do words[#words + 1] = word end
  local ok, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if ok then
    replies[i] = allowed and 'yes' or 'no'
  else
    local why = type(allowed) == 'table' and allowed.err or tostring(allowed)
    replies[i] = why:find('Invalid command', 1, true) and 'no' or 'unknown'
  end
end
return replies
"""


async def missing(nodes: Nodes, server: Server) -> Missing:
    """The rights of a pod that this user lacks on any primary.

    :raises StoreForbidden: EVAL is not allowed.
    :raises StoreError: Redis did not answer.
    """
    needed = commands(Party.POD, server)
    patterns = key_patterns(server.schema)
    questions = [(c, k) for c in needed for k in ((None,) if c in _KEYLESS.split() else patterns)]
    texts = [_question(command, pattern) for command, pattern in questions]
    refusals: dict[str, set[str | None]] = {}
    for replies in await nodes.each("EVAL", _ASK, 0, *texts):
        for (command, pattern), reply in zip(questions, replies, strict=True):
            if reply == b"no":
                refusals.setdefault(command, set()).add(pattern)
    keyed = [c for c, pattern in questions if pattern == patterns[0]]
    closed = [p for p in patterns if all(p in refusals.get(c, ()) for c in keyed)]
    opened = set(patterns) - set(closed)
    absent = {c for c, refused in refusals.items() if None in refused or (opened and opened <= refused)}
    partly = [p for p in patterns if any(p in refused for c, refused in refusals.items() if c not in absent)]
    parts = {part: tuple(sorted(c for c in absent if needed[c] is part)) for part in Degradable}
    return Missing(
        needed=(*sorted(c for c in absent if needed[c] is None), *(f"keys {p}" for p in partly)),
        parts={part: lacking for part, lacking in parts.items() if lacking},
    )


def _question(command: str, pattern: str | None) -> str:
    """A command as the server would receive it, on a key of the pattern."""
    words = command.replace("|", " ")
    if pattern is None:
        return f"{words} x 0"
    return f"{words} {pattern.replace('*', '0}:x')}"


def _listed(rights: Iterable[str]) -> str:
    return ", ".join(c.replace("|", " ").upper() if c == c.lower() and "keys" not in c else c for c in rights)
