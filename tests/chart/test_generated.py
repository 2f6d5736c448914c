"""What is generated of the chart is what its sources say."""

import subprocess
import sys

from tests.chart.chart import ROOT


def test_the_generated_files_are_up_to_date() -> None:
    """`make chart` would change nothing."""
    command = [sys.executable, str(ROOT / "helm" / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
