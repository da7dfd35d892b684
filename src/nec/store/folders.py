"""The folder that a store is written to, and its lock."""

from contextlib import ExitStack
from os import PathLike, fspath, path
from pathlib import Path

from nec.store.commits import PREPARED, is_unsettled, settle

LOCK = ".lock"


def local(url: str | PathLike[str]) -> Path:
    """Return the local path of a store that is to be written.

    Raises:
        ValueError: If it is a URL.
    """
    if "://" in fspath(url):
        raise ValueError(f"{url} is a URL; write to a local path, then copy the folder there")
    return Path(path.expanduser(url))


def is_taken(folder: Path) -> bool:
    """Whether the folder holds more than the remains of a writer killed before its first image."""
    if not folder.is_dir():
        return path.lexists(folder)
    return any(entry.name not in (LOCK, PREPARED) for entry in folder.iterdir())


def is_held(url: str | PathLike[str]) -> bool:
    """Whether a writer is at work on a local store, or was killed and left its lock file."""
    return "://" not in fspath(url) and (Path(url) / LOCK).exists()


def hold(folder: Path) -> ExitStack:
    """Take the lock for writing to a folder; closing the returned stack releases it.

    Raises:
        RuntimeError: If another process holds the lock.
    """
    from nec.store.lock import locked  # readers need no lock, and not every system has fcntl

    lock = ExitStack()
    lock.enter_context(locked(folder / LOCK, str(folder)))
    return lock


def settle_at(url: str | PathLike[str]) -> None:
    """Move the files of a complete append into place, if a killed writer left one.

    Raises:
        OSError: If the files cannot be moved from here.
        RuntimeError: If a writer is at work.
    """
    if "://" in fspath(url) or not is_unsettled(Path(url)):
        return
    try:
        with hold(Path(url)):
            settle(Path(url))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"{error.strerror or error}: its writer was killed while it put files in their places; "
            "open it once where it can be written",
            fspath(url),
        ) from error
