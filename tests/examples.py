"""How many examples a property test takes."""

from hypothesis import settings

QUICK = 25
"""What the profile `unit` of tests/conftest.py allows; `make test-unit` uses it."""


def examples(count: int, **more: object) -> settings:
    """`count` examples, or as few as the profile wants; no deadline: on a loaded machine an example takes any time."""
    default = settings.default
    assert default is not None
    wanted = min(count, QUICK) if default.max_examples <= QUICK else count
    return settings(max_examples=wanted, deadline=None, **more)  # type: ignore[arg-type]
