"""Whole files or none: writes that replace in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dense_perception.core.errors import InputError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary stream that becomes ``path`` when the block ends well, and vanishes otherwise.

    :raises OSError: if the folder is missing or not writable, or the disk is full.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files only the owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def prepare_output_folder(folder: Path, *, overwrite: bool) -> None:
    """Create ``folder``; one that holds files already is only accepted with ``overwrite``.

    :raises InputError: if it is not empty, not a folder, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"cannot write to {folder}: it is a file or lies in one, expected a folder: choose "
            "another name"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}: choose another folder"
        ) from error
    if occupied and not overwrite:
        raise InputError(
            f"{folder} is not empty: choose a new folder, or give --overwrite to replace files "
            "of the same name"
        )


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
