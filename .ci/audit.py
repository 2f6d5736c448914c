"""What a security review asks first: `audit.py`. Exit code 1: a finding of bandit, or a package with a known weakness.

Bandit reads the product's code for findings of medium severity and above. pip-audit asks the advisory database of the
package index for each locked package; where that cannot be reached, this says so and passes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 180


def main() -> int:
    """Both, whatever the first says."""
    return max(code_has_findings(), dependencies_have_weaknesses())


def code_has_findings() -> int:
    """Bandit over router/."""
    ran = subprocess.run([sys.executable, "-m", "bandit", "-q", "-ll", "-r", "router"], cwd=ROOT, check=False)
    print("bandit: " + ("findings, see above" if ran.returncode else "nothing of medium severity or above"))
    return int(ran.returncode != 0)


def dependencies_have_weaknesses() -> int:
    """pip-audit over requirements.lock."""
    options = [
        "--disable-pip",
        "--require-hashes",
        "-r",
        "requirements.lock",
        "--progress-spinner",
        "off",
        "-f",
        "json",
    ]
    command = [sys.executable, "-m", "pip_audit", *options]
    try:
        ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        print(f"pip-audit: not run, the advisory database did not answer within {_TIMEOUT_S} s")
        return 0
    print(*report(ran.stdout, ran.stderr), sep="\n")
    return int(bool(weaknesses(ran.stdout)))


def weaknesses(output: str) -> list[str]:
    """A line for each known weakness."""
    return [
        f"{package['name']} {package['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'none'}"
        for package in _packages(output)
        for known in package.get("vulns", [])
    ]


def report(output: str, errors: str) -> list[str]:
    """What is printed: the weaknesses, and how many packages were looked up."""
    packages = _packages(output)
    audited = [p for p in packages if "vulns" in p]
    if not audited:
        why = "it knows none of the packages" if packages else (errors.strip().splitlines() or ["no answer"])[-1]
        return [f"pip-audit: not run, the advisory database cannot be asked here: {why}"]
    found = weaknesses(output)
    return [*found, f"pip-audit: {len(audited)} of {len(packages)} packages looked up, {len(found)} weaknesses"]


def _packages(output: str) -> list[dict[str, Any]]:
    try:
        return list(json.loads(output)["dependencies"])
    except (ValueError, KeyError):
        return []


if __name__ == "__main__":
    sys.exit(main())
