"""The JSON Schema of policy documents, from the same tables that the parser uses.

The schema describes the shape. Relations between fields (unique names, weights that can be chosen, estimates within
their limits) are checked by the parser only: `router policy check`.
"""

from router.domain.json import JsonObject
from router.domain.policy.document import DOCUMENT

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> JsonObject:
    """The schema (draft 2020-12) as plain JSON."""
    return {"$schema": DIALECT, "title": "router-fleet policy", **DOCUMENT.schema()}
