import subprocess
import sys
from pathlib import Path

KILL = Path(__file__).with_name("kill.py")


def kill(*options: str) -> str:
    """What stores of one layer and of two are after SIGKILL; the script checks every byte."""
    shown = subprocess.run([sys.executable, str(KILL), *options], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_a_killed_writer_loses_no_append_that_had_returned() -> None:
    assert "8 kills: " in kill("--kills", "8")


def test_a_writer_that_is_killed_between_two_steps_leaves_all_layers_or_none_of_an_append() -> None:
    shown = kill("--every", "7")
    for outcome in ("all that had returned", "one append more", "settled when opened"):
        assert outcome in shown
