"""Change many files of a folder at once: either all files of a commit are there, or none.

The new files are written into one hidden folder, which is then renamed: from that moment on the
commit is complete, whatever happens. Then its files are moved into place by the process that holds
the folder's lock: the writer or, if that was killed, the next process that opens the folder.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PREPARED = ".prepared"  # a commit that may lack files: it does not count
COMPLETE = ".complete"  # a commit whose files may not all be in place


def prepare(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a commit and make it complete.

    Args:
        folder: Existing folder whose lock this process holds, without an unsettled commit.
        files: File contents by path relative to the folder.

    Raises:
        OSError: If the files cannot be written; then nothing has changed.
    """
    prepared = folder / PREPARED
    if prepared.exists():
        shutil.rmtree(prepared)
    try:
        for key, content in files.items():
            _write(prepared / key, content)
        for inside, _, _ in os.walk(prepared, topdown=False):
            _synced(Path(inside))
        prepared.rename(folder / COMPLETE)
    except BaseException:
        shutil.rmtree(prepared, ignore_errors=True)
        raise


def is_unsettled(folder: Path) -> bool:
    """Whether there is a complete commit whose files may not all be in place."""
    return (folder / COMPLETE).is_dir()


def settle(folder: Path) -> None:
    """Move the files of a complete commit into place, if there is one.

    Args:
        folder: Folder whose lock this process holds.

    Raises:
        OSError: If a file cannot be moved; the commit stays complete and can be settled later.
    """
    if not is_unsettled(folder):
        return
    complete = folder / COMPLETE
    _synced(folder)
    # Outermost files last: they are the metadata, which describe the other files.
    for file in sorted(_files(complete), key=lambda path: -len(path.parts)):
        target = folder / file.relative_to(complete)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
        _synced(target.parent)
    for inside, _, _ in os.walk(complete, topdown=False):
        with suppress(OSError):  # keep foreign files, which some file systems leave
            Path(inside).rmdir()
    if complete.exists():
        raise OSError(f"{complete} holds what no commit put there; remove it")


def _files(folder: Path) -> Iterator[Path]:
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name) for name in names if not name.startswith("."))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _synced(folder: Path) -> None:
    """Make changes to the names in a folder durable."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
