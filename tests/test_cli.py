import subprocess
import sys
from pathlib import Path

import pytest

from nec.cli import HELP, main

HEAVY = ("numpy", "zarr", "torch", "compressai", "lightning", "hydra", "omegaconf")


def test_help_teaches_in_one_screen_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from nec.cli import main; status = main(['--help']);"
        f"sys.exit(status or sum(name in sys.modules for name in {HEAVY}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert shown.stdout.strip() == HELP
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nec 0.")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no command is given"),
        (["inspet"], "did you mean 'inspect'?"),
        (["xyz"], "there are run, fit, validate, test, predict, encode, inspect, report"),
        (["--verbose"], "unknown command '--verbose'"),
    ],
)
def test_a_wrong_command_is_status_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_wrong_arguments_of_a_command_are_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["inspect"])
    assert "STORE" in capsys.readouterr().err


def test_a_named_error_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nec: error: ")
    assert error.count("\n") == 1
    assert "none does not exist" in error


def test_debug_shows_the_traceback_wherever_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (["--debug", "inspect", str(tmp_path)], ["inspect", str(tmp_path), "--debug"]):
        assert main(argv) == 1
        assert "Traceback" in capsys.readouterr().err


# A command that fails as it is told to, in the place of a job.
JOB = """
import sys, types
import nec.cli
job = types.ModuleType("job")
def fail(argv):
    raise {error}
job.main = fail
sys.modules["job"] = job
nec.cli.COMMANDS["fail"] = "job"
sys.exit(nec.cli.main(["fail"]))
"""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("ValueError('a\\n  b')", 1, "nec: error: a b"),
        ("OSError(28, 'No space left on device', '/data/s')", 1, "/data/s: No space left"),
        ("FileExistsError('s exists; remove it')", 1, "nec: error: s exists; remove it"),
        ("RuntimeError('out of memory')", 1, "nec: error: out of memory"),
        ("ModuleNotFoundError('No module', name='torch')", 1, "pip install 'nec[train]'"),
        ("ModuleNotFoundError('No module', name='torch.nn')", 1, "torch.nn is not installed; pip"),
        ("ModuleNotFoundError('No fcntl', name='fcntl')", 1, "nec: error: No fcntl\n"),
        ("ModuleNotFoundError('take mlflow')", 1, "nec: error: take mlflow\n"),
        ("ModuleNotFoundError('No module: nec.x', name='nec.x')", 1, "error: No module: nec.x\n"),
        ("KeyboardInterrupt", 130, "nec: interrupted"),
        ("TypeError('our mistake')", 1, "Traceback"),
    ],
)
def test_what_a_job_raises_decides_line_and_status(error: str, status: int, said: str) -> None:
    code = JOB.format(error=error)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == status
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1 or said == "Traceback"


def test_a_usage_error_of_the_config_is_status_2() -> None:
    pytest.importorskip("hydra")
    code = JOB.format(error="__import__('nec.config').config.UsageError('unknown key')")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "nec: error: unknown key\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    code = JOB.replace("raise {error}", "print('x' * 10**6)")
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait() == 1
