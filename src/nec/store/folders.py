"""The folder that a store is written to, and who writes to it."""

from contextlib import ExitStack
from os import PathLike, fspath, path
from pathlib import Path

from nec.store.commits import PREPARED, is_unsettled, settle

LOCK = ".lock"


def local(url: str | PathLike[str]) -> Path:
    """The path of a store that is to be written.

    Raises:
        ValueError: If it is a URL.
    """
    if "://" in fspath(url):
        raise ValueError(f"{url} is a URL; write to a local path, then copy the folder there")
    return Path(url)


def is_taken(folder: Path) -> bool:
    """Whether there is more than what a writer leaves that was killed before its first image."""
    if not folder.is_dir():
        return path.lexists(folder)
    return any(entry.name not in (LOCK, PREPARED) for entry in folder.iterdir())


def is_held(url: str | PathLike[str]) -> bool:
    """Whether a writer is at work on a local store, or was killed there."""
    return "://" not in fspath(url) and (Path(url) / LOCK).exists()


def hold(folder: Path) -> ExitStack:
    """Be the one who writes to a folder, until what this returns is closed.

    Raises:
        RuntimeError: If another process is.
    """
    from nec.store.lock import locked  # readers need none, and not every system has its calls

    lock = ExitStack()
    lock.enter_context(locked(folder / LOCK, str(folder)))
    return lock


def settle_at(url: str | PathLike[str]) -> None:
    """Put in its place what a killed writer left of a complete append.

    Raises:
        OSError: If that cannot be done here.
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
