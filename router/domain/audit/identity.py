"""How the audit names people: users and client addresses, plainly, as a keyed hash, or not at all.

A hash is the same for the same name and key, so entries of one person can be found and counted, and names cannot be
guessed without the key. Limits and pins use what the caller sent.
"""

from enum import StrEnum
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from router.domain.decide.request import DecideRequest

MARK = "h:"
"""The prefix of a hashed name. No address begins with it."""
_DIGEST_BYTES = 16


class Naming(StrEnum):
    """What the audit log stores in place of a name."""

    PLAIN = "plain"
    HASHED = "hashed"
    OFF = "off"


class AuditIdentity(Struct, frozen=True):
    """Names people in the audit log. `key`: at least 32 secret bytes; empty: no key is known."""

    naming: Naming = Naming.PLAIN
    key: bytes = b""

    def hide(self, request: DecideRequest) -> DecideRequest:
        """The request with the names that the audit log stores; `owner_id` keeps the user for limits.

        Idempotent: a request that was rebuilt from a stored work item is not hashed again.
        """
        match self.naming:
            case Naming.PLAIN:
                return request
            case Naming.OFF:
                return replace(request, user_id=None, client_ip=None, owner_id=request.user_id)
            case Naming.HASHED:
                user, address = request.user_id, request.client_ip
                return replace(
                    request,
                    user_id=None if user is None else self._hash(b"user", user),
                    client_ip=address if address is None or address.startswith(MARK) else self._hash(b"ip", address),
                    owner_id=user,
                )

    def hashed(self, user_id: str) -> str | None:
        """The name of a user in hashed entries; None: no key is known here."""
        return self._hash(b"user", user_id) if self.key else None

    def _hash(self, kind: bytes, name: str) -> str:
        key = blake2b(self.key, person=b"audit-identity").digest()
        return MARK + blake2b(name.encode(), digest_size=_DIGEST_BYTES, key=key, person=kind).hexdigest()


PLAINLY = AuditIdentity()
