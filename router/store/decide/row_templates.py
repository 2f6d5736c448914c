"""Parts of a row in which the rows of a policy differ only by numbers: they are laid out once for each policy.

A template serves policies whose limits are the tenant's or the policy's. `RowPacker` packs other rows field by field;
the bytes are the same.
"""

from collections.abc import Sequence
from struct import Struct as Binary

from msgspec import Struct, msgpack

from router.domain.decide.candidates import Charge
from router.domain.decide.outcome import Reservation
from router.domain.policy.model import Limit
from router.domain.policy.vocabulary import Algorithm, Scope
from router.store.packing import Extras, sized
from router.store.scripts import layouts

_CHARGE = layouts.CHARGE.joined("kind", "limit")
_LOG = Algorithm.LOG
_pack = msgpack.Encoder().encode
# Stands for the units of a reservation in a template; 4 bytes of an integer that no limit's id or window should hold.
_GAP = 0x8A5A5A5A


class ChargesTemplate:
    """The charges of rows whose limits all count in the tenant's own state; `limits` are their packed parts."""

    __slots__ = ("_pack", "_values")

    def __init__(self, limits: Sequence[bytes]) -> None:
        self._pack = Binary(">" + _CHARGE.format.removeprefix(">") * len(limits)).pack
        # Key, limit and units of each charge; every row fills in its own.
        self._values: list[int | bytes] = [value for limit in limits for value in (0, limit, 0)]

    def packed(self, k_state: int, charges: tuple[Charge, ...]) -> bytes:
        """Pack the charges of a row. `k_state`: index of the tenant's state."""
        values, at = self._values, 0
        for charge in charges:
            values[at] = k_state
            values[at + 2] = charge.units
            at += 3
        return self._pack(*values)


class ReservedTemplate(Struct, frozen=True):
    """The extras of rows that reserve units of their charges and have no other extras.

    `pieces`: the msgpack between the units. `charges`: indexes of the charges whose units they are.
    """

    pieces: tuple[bytes, ...]
    charges: tuple[int, ...]

    def packed(self, charges: tuple[Charge, ...]) -> bytes:
        """Pack the extras of a row, as `packing.tail_extras` does."""
        pieces = self.pieces
        extras = pieces[0]
        for at, i in enumerate(self.charges, 1):
            extras += _pack(charges[i].units) + pieces[at]
        return sized(extras)


def reservation(charge: Charge) -> Reservation:
    """The reservation that a result settles for this charge."""
    x = charge.limit
    return Reservation(x.scope, charge.owner, x.resource, x.entry, x.window_ms, charge.units, x.algorithm is _LOG)


def reserved_template(limits: Sequence[Limit], reserving: tuple[int, ...], policy_id: str) -> ReservedTemplate | None:
    """The template for a policy, or None if there is none. `reserving`: indexes of the limits that reserve units."""
    if not reserving or any(limits[i].scope is Scope.USER for i in reserving):
        return None
    owners = {Scope.TENANT: "", Scope.POLICY: policy_id}
    reserved = tuple(reservation(Charge(limits[i], owners[limits[i].scope], _GAP)) for i in reserving)
    pieces = tuple(_pack(Extras((), reserved)).split(_pack(_GAP)))
    return ReservedTemplate(pieces, reserving) if len(pieces) == len(reserving) + 1 else None
