"""What a run records of the code that made it."""

import shutil
import subprocess

import pytest

from nec.jobs import record


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of somebody who installed nec into it; git within it."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode().strip()

    installed = tmp_path / ".venv" / "nec" / "jobs" / "record.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(record.__file__, installed)
    monkeypatch.setattr(record, "__file__", str(installed))
    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    return git


def test_a_commit_is_recorded_only_where_it_holds_nec(repository, tmp_path):
    assert (record.begin(tmp_path), record.provenance()["commit"]) == ([], "")
    repository("add", ".venv")
    repository("commit", "-m", "ours")
    head = repository("rev-parse", "HEAD")[:12]
    assert (record.begin(tmp_path), record.provenance()["commit"]) == ([head], head)


def test_without_git_there_is_no_commit(repository, tmp_path, monkeypatch):
    repository("add", ".venv")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.begin(tmp_path) == []
    about = record.provenance()
    assert (about["commit"], about["dirty"]) == ("", False)
