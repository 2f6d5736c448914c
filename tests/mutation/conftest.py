"""A project small enough to be judged whole."""

from pathlib import Path

import pytest

from tests.mutation import sample


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The root of the project of `tests.mutation.sample`."""
    return sample.write(tmp_path / "project")
