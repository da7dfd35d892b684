"""A run that takes seconds: a few scenes, an untrained encoder, one epoch."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SMALL = [
    "data.train_per_class=4",
    "data.val_per_class=2",
    "data.test_per_class=2",
    "data.size=32",
    "encoder.checkpoint=random",
    "encoder.image_size=32",
    "encoder.architecture.embed_dim=32",
    "encoder.architecture.depth=2",
    "encoder.architecture.num_heads=2",
    "trainer.max_epochs=1",
    "task.linear.epochs=2",
    "task.linear.seeds=2",
]
PATIENCE_S = 900  # with a process that never ends; a busy machine takes its time


def small(*words):
    """SMALL with words in it, which win over its own."""
    keys = {word.split("=")[0] for word in words}
    return [word for word in SMALL if word.split("=")[0] not in keys] + list(words)


def only_run(place: Path, name: str = "scenes") -> Path:
    """The folder of the one finished run of an experiment."""
    (folder,) = (path.parent for path in (place / "runs" / name).glob("*/run.json"))
    return folder


def start(here: Path, *words: str, **variables: str) -> subprocess.Popen:
    """`nec` in a process group of its own, with further environment variables."""
    log = (here / "log.txt").open("ab")
    command = [sys.executable, "-m", "nec.cli", *words]
    return subprocess.Popen(
        command,
        cwd=here,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=os.environ | variables,
    )


def finish(process: subprocess.Popen, here: Path) -> None:
    """Wait until it has ended well."""
    assert process.wait(timeout=PATIENCE_S) == 0, (here / "log.txt").read_text()[-3000:]


def kill(process: subprocess.Popen, group: bool = False) -> None:
    """kill -9, of the process alone or of all that it started."""
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(found, process: subprocess.Popen) -> None:
    """Until something is found, while a process runs."""
    end = time.monotonic() + PATIENCE_S
    while not found():
        assert process.poll() is None, "the process ended before"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
