"""How much of the fleet's memory and of its store one tenant's policies may take."""

from collections.abc import Iterable

import orjson
from msgspec import Struct

from router.domain.json import JsonObject
from router.errors import QuotaExceeded
from router.usecases.policy_records import Record


class Quotas(Struct, frozen=True):
    """Bounds for all policies of a tenant together. `providers`: different names; `rules`: fallbacks and limits."""

    policies: int = 256
    providers: int = 512
    rules: int = 2048


def check_quotas(records: Iterable[Record], policy_id: str, canonical: JsonObject, quotas: Quotas) -> None:
    """Refuse a document that takes its tenant above a quota. One that takes it no further is never refused, so that a
    tenant above a lowered quota can shrink.

    :raises QuotaExceeded: it would be above one.
    """
    others = {r.policy_id: orjson.loads(r.document) for r in records}
    before = _used(others.values())
    after = _used((others | {policy_id: canonical}).values())
    for name, was, would_be, most in zip(Quotas.__struct_fields__, before, after, _bounds(quotas), strict=True):
        if would_be > most and would_be > was:
            raise QuotaExceeded(name, would_be, most)


def _bounds(quotas: Quotas) -> tuple[int, ...]:
    return quotas.policies, quotas.providers, quotas.rules


def _used(documents: Iterable[JsonObject]) -> tuple[int, int, int]:
    policies = rules = 0
    providers: set[object] = set()
    for document in documents:
        policies += 1
        fallbacks, limits = _objects(document, "fallbacks"), _objects(document, "limits")
        rules += len(fallbacks) + len(limits)
        providers.update(p.get("name") for p in _objects(document, "providers"))
        providers.update(rule.get("to") for rule in fallbacks)
    return policies, len(providers), rules


def _objects(document: JsonObject, section: str) -> list[JsonObject]:
    """The objects of a list; a document of a newer language may hold anything."""
    found = document.get(section)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
