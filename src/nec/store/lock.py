"""One process at a time on a run, or on a store."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:
    raise ImportError(
        f"nec locks what it writes by fcntl, which {sys.platform} lacks; make runs and stores on "
        "Linux, macOS or WSL, and read stores anywhere"
    ) from None

# Lock files of this process. A forked child, such as a data loader worker, would hold them too.
_HELD: set[IO[str]] = set()
os.register_at_fork(after_in_child=lambda: [file.close() for file in _HELD])


@contextmanager
def locked(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, and remove it in the end.

    The kernel releases the lock when its process dies, however it dies, so a file that a killed
    process leaves behind blocks nobody; nor do its forked children, which close the file.

    Args:
        path: Path of the lock file.
        what: What the lock protects, for the error message.
        wait: Whether to wait until no other process holds the lock, and to say so on stderr,
            instead of an error.

    Raises:
        RuntimeError: If another process holds the lock.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise RuntimeError(
                        f"another process is at work on {what}; wait until it is done, or end it"
                    ) from None
                print(f"waiting for another process at work on {what}", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # its last holder removed it after we opened it: lock the next one
            _HELD.add(file)
            process = os.getpid()
            try:
                yield
            finally:
                if os.getpid() == process:  # a forked child does not hold it
                    path.unlink(missing_ok=True)  # while it is held, so that it is ours
                _HELD.discard(file)
            return


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether path still names this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
