"""Processes of a job: which of them leads, what a child inherits, and that none is left over."""

import os
import threading
import time

# What Lightning, torchrun and SLURM tell a process of its rank.
RANKS = ("RANK", "SLURM_PROCID", "GROUP_RANK", "NODE_RANK", "LOCAL_RANK")
# What else a launcher leaves in the environment of a process it started; a job starts its own.
OF_LAUNCHERS = (
    "RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "PL_GLOBAL_SEED",
    "PL_SEED_WORKERS",
)
# The process that a job of a sweep follows.
PARENT = "NEC_PARENT"
WATCHED_EVERY_S = 0.5


def leads() -> bool:
    """Whether this process is rank 0, which does all that is done once."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def environment_of_job() -> dict[str, str]:
    """What a job of a sweep is started with: no trace of ranks that are not its own."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_LAUNCHERS}
    return {**kept, PARENT: str(os.getpid())}


def follow_parent() -> None:
    """End with the process that started this one, however that ends, where it is a part of a job.

    A job of a sweep and a rank above 0 would otherwise go on, and hold their run, after kill -9.
    """
    parent = int(os.environ.pop(PARENT, 0) or (0 if leads() else os.getppid()))
    if parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCHED_EVERY_S)
    os._exit(1)
