"""Processes of a job: which of them leads, what a child inherits, and that none is left over."""

import os
import select
import threading
from contextlib import suppress

# What a launcher leaves in the environment of a process it started; a job starts its own.
OF_LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
)
# The process that a job of a sweep follows.
PARENT = "NEC_PARENT"


def leads() -> bool:
    """Whether this process is rank 0, which does all that is done once.

    By what torchrun says (RANK), Lightning (LOCAL_RANK, NODE_RANK) or SLURM, in this order: one may
    run inside of another, and the innermost is right.
    """
    told = os.environ
    if "RANK" in told:
        return int(told["RANK"]) == 0
    if "LOCAL_RANK" in told or "NODE_RANK" in told:
        return int(told.get("LOCAL_RANK", 0)) == int(told.get("NODE_RANK", 0)) == 0
    return int(told.get("SLURM_PROCID", 0)) == 0


def environment_of_job() -> dict[str, str]:
    """Return the environment of a sweep's job, without traces of ranks that are not its own."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_LAUNCHERS}
    return {**kept, PARENT: str(os.getpid())}


def follow_parent() -> None:
    """End with the process that started this one, however that ends, if it is part of a job.

    A job of a sweep and a rank above 0 would otherwise go on, and hold their run, after kill -9.
    """
    parent = int(os.environ.pop(PARENT, 0) or (0 if leads() else os.getppid()))
    if parent and hasattr(os, "pidfd_open"):  # Linux
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    with suppress(ProcessLookupError):  # it is gone already
        select.select([os.pidfd_open(parent)], [], [])  # readable when it has ended
    os.write(2, b"nec: what started this process has ended, and so does it\n")
    os._exit(1)
