import subprocess
import sys
from pathlib import Path

KILL = Path(__file__).parents[2] / "benchmarks/kill.py"


def test_a_killed_writer_loses_no_append_that_had_returned() -> None:
    shown = subprocess.run(
        [sys.executable, str(KILL), "--kills", "8"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "8 kills: " in shown.stdout
