"""The JSON Schema of policy documents, made from the tables that the parser uses.

The schema describes the shape of a document. Only the parser (`router policy check`) checks relations between fields,
such as unique names, weights that are not all 0, and estimates within their limits.
"""

from router.domain.json import JsonObject
from router.domain.policy.document import DOCUMENT

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> JsonObject:
    """The schema (draft 2020-12) as plain JSON."""
    return {"$schema": DIALECT, "title": "router-fleet policy", **DOCUMENT.schema()}
