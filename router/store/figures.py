"""`ports.decisions.FiguresStore` on Redis: the figures that lua/settle.lua keeps.

figures  B 1, d version (Redis ms), then each provider: 8s entry, d latency_ms, d its weight, d cost in micro-USD, d its
         weight (lua/include/figures.lua)
"""

from collections.abc import Sequence
from struct import Struct as Layout

from router.domain.decide.figures import NO_FIGURES, Live, Snapshot
from router.store.keys import Keys
from router.store.packing import FORMAT
from router.store.servers.nodes import Nodes

_HEAD = Layout(">Bd")
_FIGURE = Layout(">8sdddd")
_MAXIMUM = 2.0**53


class RedisFigures:
    """Reads figures; the port has the promises."""

    def __init__(self, keys: Keys, nodes: Nodes) -> None:
        self._keys = keys
        self._nodes = nodes

    async def snapshots(self, tenant_ids: Sequence[str]) -> list[Snapshot]:
        """See `ports.decisions.FiguresStore.snapshots`."""
        raws = await self._nodes.gather([("GET", self._keys.tenant(t).figures) for t in tenant_ids])
        return [NO_FIGURES if raw is None else snapshot(raw) for raw in raws]


def snapshot(raw: bytes) -> Snapshot:
    """Decode a tenant's figures. Damaged figures, or those of another format, count as none: figures are hints."""
    if len(raw) < _HEAD.size or raw[0] != FORMAT or (len(raw) - _HEAD.size) % _FIGURE.size:
        return NO_FIGURES
    _, version = _HEAD.unpack_from(raw)
    live = {entry: Live(*figures) for entry, *figures in _FIGURE.iter_unpack(raw[_HEAD.size :]) if _sound(*figures)}
    return Snapshot(int(version), live) if _sound(version) else NO_FIGURES


def _sound(*numbers: float) -> bool:
    return all(0 <= x <= _MAXIMUM for x in numbers)
