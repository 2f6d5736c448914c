"""Writes golden_shas.txt anew: `python -m tests.store.update_shas`. Its diff shows a reviewer which scripts changed."""

from hashlib import sha1
from pathlib import Path

from router.installed_files import lua_dir
from router.store.scripts.flatten import flat

GOLDEN = Path(__file__).with_name("golden_shas.txt")


def shas() -> str:
    """A line for each script: its name and the SHA-1 of what is sent to Redis, includes and all."""
    lines = []
    for path in sorted(lua_dir().glob("*.lua")):
        text = flat(path.stem, lua_dir(), {})
        lines.append(f"{path.stem} {sha1(text.encode(), usedforsecurity=False).hexdigest()}\n")
    return "".join(lines)


if __name__ == "__main__":
    GOLDEN.write_text(shas())
