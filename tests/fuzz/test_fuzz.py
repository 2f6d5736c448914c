"""Every decoder and packer on a few thousand inputs, and on every input that one has failed on.

`make fuzz` takes 100,000 inputs each, the nightly run 1,000,000.
"""

from itertools import islice

import pytest

from tests.fuzz.inputs import Inputs
from tests.fuzz.packers import PACKERS
from tests.fuzz.run import CORPUS, Failed, fuzz, kept, one, replay, round_trips
from tests.fuzz.targets import TARGETS

SEED = 20_261_130


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_raises_only_what_it_promises(name: str) -> None:
    """Its examples are accepted, its corpus and changed examples never raise another error."""
    replay(name)
    accepted = fuzz(name, 1_000, SEED)
    assert accepted or TARGETS[name].errors


@pytest.mark.parametrize("name", PACKERS)
def test_what_is_packed_is_read_as_it_was(name: str) -> None:
    """Random values, with every optional part there and not there."""
    assert round_trips(name, 500, SEED) == 500


def test_a_seed_gives_the_same_inputs_again() -> None:
    """And another seed gives others: a failure can be repeated."""
    for text in (True, False):
        drawn = [list(islice(Inputs([b'{"a":[1,2]}'], seed, text=text).take(50), 50)) for seed in (7, 7, 8)]
        assert drawn[0] == drawn[1] != drawn[2]


def test_most_inputs_differ() -> None:
    """A generator that repeats itself would count inputs that it never made."""
    for target in TARGETS.values():
        drawn = list(Inputs(target.examples, 1, text=target.text).take(400))
        assert len(set(drawn)) > 200


def test_a_decoder_that_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The input is handed over, so that it can be kept."""
    monkeypatch.setitem(TARGETS, "step", TARGETS["head"])
    monkeypatch.setitem(TARGETS, "head", type(TARGETS["head"])(lambda data: data[30], [b"x" * 31], text=False))
    assert one("head", b"y" * 31)
    with pytest.raises(Failed) as failed:
        fuzz("head", 1_000, SEED)
    assert failed.value.data is not None
    assert len(failed.value.data) < 31


def test_the_corpus_is_of_targets() -> None:
    """A folder that no target reads would be forgotten."""
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)
    assert any(kept(name) for name in TARGETS)
