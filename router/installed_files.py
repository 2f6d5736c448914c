"""Files that are installed with the package: Lua scripts and example policies.

A wheel has them inside the package (`router/_lua`, `router/_examples`); an editable install or a plain checkout has
them beside it (`lua/`, `examples/`).
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def lua_dir() -> Path:
    """The folder of the Lua scripts.

    :raises FileNotFoundError: neither packaged nor in a checkout: the installation is broken.
    """
    return _find("lua")


def examples_dir() -> Path:
    """The folder of the examples: `policies/<tenant>/<policy_id>.json` and friends.

    :raises FileNotFoundError: neither packaged nor in a checkout: the installation is broken.
    """
    return _find("examples")


def _find(name: str) -> Path:
    places = (_PACKAGE / f"_{name}", _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{name}/ is in neither {places[0]} nor {places[1]}: reinstall router-fleet")
