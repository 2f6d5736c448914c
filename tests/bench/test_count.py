"""What `bench.count` makes of its counts; counting itself is `make bench-count`."""

import subprocess
from pathlib import Path

import pytest

from bench.count import figures
from bench.count.callgrind import ValgrindMissing, valgrind
from bench.count.client_requests import Callgrind


@pytest.mark.parametrize(
    ("after", "holds"),
    [(103, True), (103.1, False), (100, True), (50, True), (300, False)],
    ids=["3 % more", "above 3 %", "the same", "half", "three times"],
)
def test_a_count_may_grow_by_three_per_cent(after: float, holds: bool) -> None:
    """By more, and it fails; a smaller one never does."""
    (grown,) = figures.compare({"pod 1": 100}, {"pod 1": after})
    assert (grown.holds, grown.ratio) == (holds, after / 100)


def test_a_load_that_is_new_is_not_compared() -> None:
    """It has nothing to grow from; the others are compared each with itself."""
    found = figures.compare({"a": 1, "gone": 2, "b": 4}, {"new": 9, "b": 8, "a": 1})
    assert [(g.load, g.ratio) for g in found] == [("b", 2), ("a", 1)]


def test_the_committed_counts_name_every_load_and_their_build() -> None:
    """So that a load cannot be dropped from the comparison unseen."""
    build, counts = figures.committed()
    assert set(counts) == {"pod 128", "pod 16", "pod 1", "script 128", "script 1", "settle 32", "settle 1"}
    assert set(build) == set(figures.build())
    assert all(count > 10_000 for count in counts.values())


def test_the_history_has_the_commit_of_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one that wrote them; a shallow clone does not know it, and neither does a folder without history."""
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "FILE", tmp_path / "figures.json")
    assert figures.base() is None
    commits = []
    _git(tmp_path, "init", "-q", "-b", "main")
    for number, file in enumerate(("figures.json", "figures.json", "other")):
        (tmp_path / file).write_text(str(number))
        _git(tmp_path, "add", ".")
        _git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", str(number))
        commits.append(_git(tmp_path, "rev-parse", "HEAD").strip())
    assert figures.base() == commits[1]
    shallow = tmp_path / "shallow"
    _git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path}", str(shallow))
    monkeypatch.setattr(figures, "ROOT", shallow)
    monkeypatch.setattr(figures, "FILE", shallow / "figures.json")
    assert figures.base() is None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_missing_valgrind_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.count.callgrind.UNPACKED", tmp_path)
    with pytest.raises(ValgrindMissing, match="make tools"):
        valgrind()


def test_client_requests_do_nothing_outside_valgrind() -> None:
    """They are instructions that leave every register as it was, and return."""
    callgrind = Callgrind()
    callgrind.start()
    callgrind.stop()
    callgrind.dump("nothing")
