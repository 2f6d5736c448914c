"""The part of requirements.lock that an image needs, hashes included: `runtime_lock.py LOCK WANTED... > runtime.lock`.

WANTED are requirements, or a pyproject.toml, which stands for its dependencies. pip resolves them under the lock as
constraints; what it would install is cut out of the lock, block by block. A package that the lock does not have is an
error, so nothing unlocked can get in.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

_BLOCK = re.compile(r"^([A-Za-z0-9._-]+)==")


def blocks(lock: str) -> dict[str, str]:
    """Normalised name → its lines in the lock."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        start = _BLOCK.match(line)
        if start:
            name = normal(start[1])
        found[name] = found.get(name, "") + line
    return found


def normal(name: str) -> str:
    """The name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolved(lock: Path, wanted: list[str]) -> list[str]:
    """The normalised names that pip would install into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        # Hashes in a constraints file would ask for hashes on WANTED, too.
        bare = Path(folder, "constraints")
        bare.write_text(re.sub(r"\s*\\\n\s*--hash=\S+", "", lock.read_text()))
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), "-c", str(bare), *wanted], check=True, stdout=sys.stderr)
        return sorted(normal(one["metadata"]["name"]) for one in json.loads(report.read_text())["install"])


def main(lock: Path, arguments: list[str]) -> None:
    """Write the part to standard output."""
    wanted: list[str] = []
    for argument in arguments:
        path = Path(argument)
        wanted += tomllib.loads(path.read_text())["project"]["dependencies"] if path.suffix == ".toml" else [argument]
    have = blocks(lock.read_text())
    names = resolved(lock, wanted)
    missing = [name for name in names if name not in have]
    if missing:
        sys.exit(f"{lock} does not have {', '.join(missing)}: run make lock")
    sys.stdout.write("".join(have[name] for name in names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
