"""Who may do an admin act: tokens, their holders and roles.

Only digests of equal length are kept and compared in constant time: neither the duration of a comparison nor an error
message reveals a token.
"""

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest

from router.domain.decide.decision import Code, Refused
from router.domain.roles import Holder, Role


class AdminTokens:
    """The tokens of this fleet. With `open_reading`, the four read-only acts that older gateways use need no token."""

    def __init__(self, tokens: Iterable[tuple[str, Role, str]], *, open_reading: bool) -> None:
        self.replace(tokens)
        self._open_reading = open_reading

    def replace(self, tokens: Iterable[tuple[str, Role, str]]) -> None:
        """Accept these tokens from now on, and no others."""
        self._holders = [(_digest(token), Holder(principal, role)) for principal, role, token in tokens]

    def holder(self, token: str | None) -> Holder | None:
        """The holder of a token, None if there is none. Compares every digest, also after a match: constant time."""
        token_digest = _digest(token or "")
        match: Holder | None = None
        for digest, holder in self._holders:
            if compare_digest(token_digest, digest):
                match = holder
        return match if token else None

    def refusal(self, holder: Holder | None, needed: Role, *, may_be_open: bool = False) -> Refused | None:
        """Why this holder may not do an act that needs the role; None if it may."""
        if may_be_open and self._open_reading:
            return None
        if holder is None:
            return Refused(
                Code.UNAUTHORIZED,
                "token missing or unknown: send a valid one in the header `authorization: Bearer …` or `api_key`",
            )
        if holder.role < needed:
            return Refused(
                Code.UNAUTHORIZED,
                f"this act needs role {needed.label}, but the token has role {holder.role.label}",
                {"role": holder.role.label, "needs_role": needed.label},
            )
        return None


def _digest(token: str) -> bytes:
    return blake2b(token.encode(errors="surrogateescape"), digest_size=32).digest()
