"""Quotas on the size of one tenant's policies: number of policies, providers and rules."""

from collections import Counter
from collections.abc import Iterable

import orjson
from msgspec import Struct

from router.domain.json import JsonObject
from router.errors import QuotaExceeded
from router.ports.policy_records import Quotas, Record


class Usage:
    """A tenant's use of its quotas."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._parts: dict[str, _Part] = {}
        self._names: Counter[str] = Counter()
        self._rules = 0
        for record in records:
            self.put(record.policy_id, orjson.loads(record.document))

    def put(self, policy_id: str, document: JsonObject) -> None:
        """Replace the policy's document."""
        self._count(self._parts.get(policy_id, _NOTHING), -1)
        self._parts[policy_id] = part = _part(document)
        self._count(part, 1)

    def check(self, policy_id: str, document: JsonObject, quotas: Quotas) -> None:
        """Refuse a document that would exceed a quota of its tenant.

        A document that does not increase the use is never refused, so a tenant above a lowered quota can shrink.

        :raises QuotaExceeded: the tenant would exceed a quota.
        """
        previous, new = self._parts.get(policy_id, _NOTHING), _part(document)
        added = sum(1 for n in new.names if not self._names[n])
        removed = sum(1 for n in previous.names - new.names if self._names[n] == 1)
        for name, grows, maximum in (
            ("policies", int(policy_id not in self._parts), quotas.policies),
            ("providers", added - removed, quotas.providers),
            ("rules", new.rules - previous.rules, quotas.rules),
        ):
            would_use = self._used(name) + grows
            if grows > 0 and would_use > maximum:
                raise QuotaExceeded(name, would_use, maximum=maximum)

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
    """One policy's use of the quotas."""

    names: frozenset[str] = frozenset()
    rules: int = 0


_NOTHING = _Part()


def _part(document: JsonObject) -> _Part:
    fallbacks, limits = _objects(document, "fallbacks"), _objects(document, "limits")
    names = [p.get("name") for p in _objects(document, "providers")] + [rule.get("to") for rule in fallbacks]
    return _Part(frozenset(n for n in names if isinstance(n, str)), len(fallbacks) + len(limits))


def _objects(document: JsonObject, section: str) -> list[JsonObject]:
    """Return the objects of a list. Anything else is skipped: a newer policy language may put it there."""
    items = document.get(section)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
