"""Whole files that are either there or not, and folders that one process holds.

A file is written beside its place, flushed to the disk and renamed; the caller flushes the folder when the rename has
to survive a power cut. Reads are bounded. What the bytes mean is someone else's concern.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from fedpriv.errors import NotAFile, StateInUse, StorageFailed, UsageError


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replace `path` by `content` in one step; raise `StorageFailed` if the disk refuses."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  # Path.replace is the same call; os.replace names the guarantee
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}; free space or repair the disk") from error


def sync_folders(folders: Iterable[Path]) -> None:
    """Flush the names in `folders` to the disk, so that renames and new files in them survive a power cut."""
    for folder in folders:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageFailed(f"cannot flush {folder}: {error.strerror}") from error


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Create `folder` and its parents where they are missing; raise `StorageFailed` if that is impossible."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot create the folder {folder}: {error.strerror}") from error


def read_bounded(path: Path, maximum: int) -> bytes | None:
    """Return the content of `path`, at most one byte more than `maximum`, or None if there is no such file.

    Raise `NotAFile` for what is no regular file: a pipe could keep a reader waiting for ever.
    """
    try:
        with open(path, "rb", opener=_at_once) as file:  # Path.open takes no opener
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotAFile(f"cannot read {path}: it is no regular file")
            return file.read(maximum + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise NotAFile(f"cannot read {path}: it is a folder, no regular file") from None
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}") from error


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for a pipe's other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows does not have


class FolderLock:
    """An exclusive hold on a folder; the operating system lets go when the process ends, however it ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, folder: Path) -> None:
        """Take the hold; raise `StateInUse` if another process, or this one, already has it."""
        if sys.platform == "win32":
            raise UsageError("a worker with a state folder needs Linux or macOS; use a virtual worker here")
        import fcntl  # noqa: PLC0415  # does not exist on Windows, where researchers import this module

        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StateInUse(
                f"another process holds {folder}; stop that worker first, or use another state folder"
            ) from error

    def release(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)
