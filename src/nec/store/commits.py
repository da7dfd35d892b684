"""Changing many files of a folder at once: either all of a commit's are there, or none.

The new files are written into one hidden folder, which is then renamed: from that moment on the
commit is complete, whatever happens. Then they move to their places; what a killed process did not
move, the next one that opens the folder does.
"""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

PREPARED = ".prepared"  # a commit that may lack files: nothing happened
COMPLETE = ".complete-"  # and a name: a commit whose files may not all be in their places


def commit(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put files in their places, all or none.

    Args:
        folder: Exists; one process writes to it.
        files: Content by path relative to the folder.

    Raises:
        OSError: If they cannot be written; then nothing has changed.
    """
    prepared = folder / PREPARED
    shutil.rmtree(prepared, ignore_errors=True)
    try:
        for key, content in files.items():
            _write(prepared / key, content)
        # A name of its own, so that whoever still settles an older commit lets it be.
        prepared.rename(folder / f"{COMPLETE}{uuid.uuid4().hex}")
    except BaseException:
        shutil.rmtree(prepared, ignore_errors=True)
        raise
    _synced(folder)
    settle(folder)


def settle(folder: Path) -> None:
    """Move the files of complete commits to their places, if there are any.

    Two processes may do so at the same time.
    """
    for complete in folder.glob(f"{COMPLETE}*"):
        _move(complete, folder)
        shutil.rmtree(complete, ignore_errors=True)


def _move(complete: Path, folder: Path) -> None:
    # The outermost last: they are the metadata, which say what the other files hold.
    for file in sorted(complete.rglob("*"), key=lambda path: -len(path.parts)):
        if file.is_dir():
            continue
        target = folder / file.relative_to(complete)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.replace(target)
        except FileNotFoundError:  # another process was faster
            continue


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _synced(folder: Path) -> None:
    """Make a rename last."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
