"""Names on the command line are checked before any server is contacted."""

import pytest
import typer

from router.cli.shared.names import _provider, tenant_name


@pytest.mark.parametrize("name", ["openai", "pool/a-1", "eu.west:gpu_2", "x" * 230])
def test_a_name_that_a_policy_may_hold_is_a_provider(name: str) -> None:
    """It is passed on as it is."""
    assert _provider(name) == name


@pytest.mark.parametrize("name", ["", "two words", "a*", "x" * 231, "[A-Za-z0-9_.:/-]{1,230}"])
def test_any_other_name_is_wrong_usage(name: str) -> None:
    """The message says what a name may hold."""
    with pytest.raises(typer.BadParameter, match="is not a provider name: 1 to 230 of"):
        _provider(name)


@pytest.mark.parametrize("name", ["acme", None])
def test_a_tenant_may_be_left_out(name: str | None) -> None:
    """An option that is not given is no name."""
    assert tenant_name(name) == name
