import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from io import StringIO

import pytest

from nec.store.lock import locked


def test_a_lock_that_is_held_is_refused_and_gone_when_its_holder_is_done(tmp_path):
    path = tmp_path / ".run.lock"
    with locked(path, "run"):
        with pytest.raises(RuntimeError, match="at work on run"), locked(path, "run"):
            pass
        assert path.is_file()
    assert not path.exists()


def test_a_lock_is_let_go_after_an_error(tmp_path):
    path = tmp_path / ".run.lock"
    with pytest.raises(KeyError), locked(path, "run"):
        raise KeyError
    assert not path.exists()
    with locked(path, "run"):
        assert path.is_file()


def test_who_waits_enters_when_the_holder_is_done(tmp_path):
    path, entered = tmp_path / "lock", []

    def work():
        for _ in range(100):
            with locked(path, "it", wait=True):
                entered.append(len(entered))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == list(range(400))
    assert not path.exists()


def test_who_waits_says_so(tmp_path, monkeypatch):
    path, said = tmp_path / "lock", StringIO()
    monkeypatch.setattr(sys, "stderr", said)

    def work():
        with locked(path, "it", wait=True):
            pass

    with locked(path, "it"):
        waiting = threading.Thread(target=work)
        waiting.start()
        until = time.monotonic() + 20
        while not said.getvalue().endswith("\n") and time.monotonic() < until:
            time.sleep(0.01)
    waiting.join()
    assert said.getvalue() == "waiting for another process at work on it\n"


def test_a_system_without_file_locks_reads_and_is_named_when_it_writes():
    code = "import sys; sys.modules['fcntl'] = None; import nec.store; import nec.store.lock"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = ended.stderr.splitlines()[-1]
    assert said.startswith(f"ImportError: nec locks what it writes by fcntl, which {sys.platform}")
    assert said.endswith("; make runs and stores on Linux, macOS or WSL, and read stores anywhere")


def test_of_many_that_lock_and_remove_one_file_only_one_is_inside(tmp_path):
    path, inside, overlaps, entered = tmp_path / "lock", [], [], []

    def work():
        for _ in range(300):
            try:
                with locked(path, "it"):
                    inside.append(1)
                    overlaps.append(len(inside) > 1)
                    os.sched_yield()
                    inside.pop()
                    entered.append(1)
            except RuntimeError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered
    assert not any(overlaps)


FORKS = """
import os, sys, time
from pathlib import Path
from nec.store.lock import locked
with locked(Path(sys.argv[1]), "it"):
    if os.fork() == 0:
        print("forked", flush=True)
        time.sleep(60)
    sys.stdin.read()
"""


def test_what_a_killed_process_had_forked_holds_no_lock(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", FORKS, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdout.readline() == b"forked\n"
        with pytest.raises(RuntimeError), locked(path, "it"):
            pass
        holder.kill()
        holder.wait()
        with locked(path, "it"):
            assert path.is_file()
        os.killpg(holder.pid, signal.SIGKILL)


def test_a_forked_child_does_not_let_go_of_the_lock(tmp_path):
    path = tmp_path / "lock"
    with ExitStack() as lock:
        lock.enter_context(locked(path, "it"))
        child = os.fork()
        if child == 0:
            lock.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert path.is_file()
        with pytest.raises(RuntimeError), locked(path, "it"):
            pass
