"""Tokens of named principals: `principal:role:token` entries, separated by commas or white space (such as newlines)."""

import re
from collections.abc import Iterator

from router.domain.roles import Role

SHORTEST = 16
SHORTEST_SOON = 32
"""The next release refuses shorter ones."""
_ENTRY = re.compile(r"(?P<principal>[^\s:,\x00-\x1f\x7f]{1,128}):(?P<role>[a-z]+):(?P<token>[!-+\--~]+)")
_ROLES = {role.label: role for role in Role}


def named_tokens(text: str) -> Iterator[tuple[str, Role, str]]:
    """Yield principal, role and token of each entry.

    :raises ValueError: an entry is wrong; the message names the entry and the mistake, and never contains a token.
    """
    tokens: set[str] = set()
    for number, entry in enumerate(re.split(r"[\s,]+", text.strip()), 1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"entry {number} is not principal:role:token")
        role = _ROLES.get(match["role"])
        if role is None:
            raise ValueError(f"entry {number} has an unknown role: there are {', '.join(_ROLES)}")
        if len(match["token"]) < SHORTEST:
            raise ValueError(f"the token of entry {number} has fewer than {SHORTEST} characters")
        if match["token"] in tokens:
            raise ValueError(f"the token of entry {number} is also the token of an earlier one")
        tokens.add(match["token"])
        yield match["principal"], role, match["token"]
