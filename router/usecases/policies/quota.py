"""How much of the fleet's memory and of its store one tenant's policies may take."""

from collections import Counter
from collections.abc import Iterable

import orjson
from msgspec import Struct

from router.domain.json import JsonObject
from router.errors import QuotaExceeded
from router.ports.policy_records import Quotas, Record


class Usage:
    """What the policies of one tenant take of its quotas."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._parts: dict[str, _Part] = {}
        self._names: Counter[str] = Counter()
        self._rules = 0
        for record in records:
            self.put(record.policy_id, orjson.loads(record.document))

    def put(self, policy_id: str, document: JsonObject) -> None:
        """The policy is this document now."""
        self._count(self._parts.get(policy_id, _NOTHING), -1)
        self._parts[policy_id] = part = _part(document)
        self._count(part, 1)

    def check(self, policy_id: str, document: JsonObject, quotas: Quotas) -> None:
        """Refuse a document that takes its tenant above a quota. One that takes it no further is never refused, so that
        a tenant above a lowered quota can shrink.

        :raises QuotaExceeded: it would be above one.
        """
        old, new = self._parts.get(policy_id, _NOTHING), _part(document)
        added = sum(1 for n in new.names if not self._names[n])
        gone = sum(1 for n in old.names - new.names if self._names[n] == 1)
        for name, grows, maximum in (
            ("policies", int(policy_id not in self._parts), quotas.policies),
            ("providers", added - gone, quotas.providers),
            ("rules", new.rules - old.rules, quotas.rules),
        ):
            would_be = self._used(name) + grows
            if grows > 0 and would_be > maximum:
                raise QuotaExceeded(name, would_be, maximum)

    def _used(self, name: str) -> int:
        match name:
            case "policies":
                return len(self._parts)
            case "providers":
                return len(self._names)
            case _:
                return self._rules

    def _count(self, part: "_Part", sign: int) -> None:
        self._rules += sign * part.rules
        for name in part.names:
            self._names[name] += sign
            if not self._names[name]:
                del self._names[name]


class _Part(Struct, frozen=True):
    """What one policy takes."""

    names: frozenset[str] = frozenset()
    rules: int = 0


_NOTHING = _Part()


def _part(document: JsonObject) -> _Part:
    fallbacks, limits = _objects(document, "fallbacks"), _objects(document, "limits")
    names = [p.get("name") for p in _objects(document, "providers")] + [rule.get("to") for rule in fallbacks]
    return _Part(frozenset(n for n in names if isinstance(n, str)), len(fallbacks) + len(limits))


def _objects(document: JsonObject, section: str) -> list[JsonObject]:
    """The objects of a list; a document of a newer language may hold anything."""
    found = document.get(section)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
