"""The JSON Schema of policy documents, from the same tables that the parser reads with.

The schema describes the shape. What stands between fields (unique names, weights that can be chosen, estimates within
their limits) only the parser checks: `router policy check`.
"""

from router.domain.json import JsonObject
from router.domain.policy.document import DOCUMENT

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> JsonObject:
    """The schema (draft 2020-12) as plain JSON."""
    return {"$schema": DIALECT, "title": "router-fleet policy", **DOCUMENT.schema()}
