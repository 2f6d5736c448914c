"""Who may do an admin act: by token, compared in constant time.

Only digests of tokens are kept, all of one length: neither the time of a comparison nor a fault's text tells of one.
"""

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest

from router.domain.decision import Code, Refused
from router.domain.roles import Holder, Role


class Tokens:
    """The tokens of this fleet. `open_reading`: the acts that only read, and that older gateways know, ask for none."""

    def __init__(self, tokens: Iterable[tuple[str, Role, str]], *, open_reading: bool) -> None:
        self._holders = [(_digest(token), Holder(principal, role)) for principal, role, token in tokens]
        self._open_reading = open_reading

    def holder(self, token: str | None) -> Holder | None:
        """Whose token it is. Every known one is compared, whatever the others said."""
        given = _digest(token or "")
        found: Holder | None = None
        for digest, holder in self._holders:
            if compare_digest(given, digest):
                found = holder
        return found if token else None

    def refusal(self, holder: Holder | None, needed: Role, *, may_be_open: bool = False) -> Refused | None:
        """Why this holder may not do what needs that role; None: it may."""
        if may_be_open and self._open_reading:
            return None
        if holder is None:
            return Refused(
                Code.UNAUTHORIZED, "send a token that is good here: header `authorization: Bearer …`, or `api_key`"
            )
        if holder.role < needed:
            return Refused(
                Code.UNAUTHORIZED,
                f"this act needs role {needed.label}; the token's is {holder.role.label}",
                {"role": holder.role.label, "needs_role": needed.label},
            )
        return None


def _digest(token: str) -> bytes:
    return blake2b(token.encode(errors="surrogateescape"), digest_size=32).digest()
