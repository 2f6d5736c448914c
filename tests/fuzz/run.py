"""Runs of the targets: the kept corpus, changed examples, and round trips."""

import random
from pathlib import Path
from zlib import crc32

from tests.fuzz.inputs import Inputs
from tests.fuzz.packers import PACKERS
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


class Failed(Exception):
    """A target did what it must not do; `data` is the input (None: of a round trip)."""

    def __init__(self, what: str, data: bytes | None) -> None:
        super().__init__(what)
        self.data = data


def kept(name: str) -> list[bytes]:
    """The corpus of a target: inputs that it once failed on."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def one(name: str, data: bytes) -> bool:
    """Whether the target accepts the input.

    :raises Failed: it raised what it does not promise.
    """
    target = TARGETS[name]
    try:
        target.read(data)
    except target.errors:
        return False
    except Exception as fault:
        raise Failed(f"{type(fault).__name__}: {fault}, for {data[:200]!r}", data) from fault
    return True


def replay(name: str) -> None:
    """The examples, which must be accepted, and the corpus.

    :raises Failed: see `one`; or an example is refused.
    """
    for data in TARGETS[name].examples:
        if not one(name, data):
            raise Failed(f"an example is refused: {data[:200]!r}", data)
    for data in kept(name):
        one(name, data)


def fuzz(name: str, count: int, seed: int) -> int:
    """How many of so many changed examples the target accepts.

    :raises Failed: see `one`.
    """
    target = TARGETS[name]
    inputs = Inputs((*target.examples, *kept(name)), _own(name, seed), text=target.text)
    return sum(one(name, data) for data in inputs.take(count))


def round_trips(name: str, count: int, seed: int) -> int:
    """Packs and reads back so many values; returns their number.

    :raises Failed: one came back as another, or could not be packed or read.
    """
    trip, source = PACKERS[name], random.Random(_own(name, seed))  # noqa: S311 - it shall be repeatable
    for i in range(count):
        try:
            given, found = trip(source)
        except Exception as fault:
            raise Failed(f"{type(fault).__name__}: {fault}, at value {i}", None) from fault
        if given != found:
            raise Failed(f"value {i}: {given!r} came back as {found!r}", None)
    return count


def _own(name: str, seed: int) -> int:
    """Targets draw by themselves, so that one alone gets what it got among all."""
    return seed << 32 | crc32(name.encode())
