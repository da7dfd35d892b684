import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).with_name("fuzz.py")


def test_damage_is_an_error_or_does_no_harm() -> None:
    shown = subprocess.run(
        [sys.executable, str(FUZZ), "--cases", "3000", "--seed", "1"],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert ", 0 failures" in shown.stdout
