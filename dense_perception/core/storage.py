"""Files that are whole or absent, their hashes, and the per-user cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dense_perception.core.errors import ArtefactError, InputError

_FOLDER = "dense_perception"
_BLOCK = 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary stream that becomes ``path`` when the block ends well, and vanishes otherwise.

    ``durable`` also waits until the disk has the bytes, so that they survive a power cut.

    :raises OSError: if the folder is missing or not writable, or the disk is full.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files only the owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8, in one step.

    :raises OSError: as :func:`atomic_write`.
    """
    with atomic_write(path) as stream:
        stream.write(text.encode())


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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, read anew each time.

    Nothing is remembered: a file can change and keep its size and modification time.

    :raises ArtefactError: if the file cannot be read.
    """
    state = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(_BLOCK):
                state.update(block)
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror or error}") from error
    return state.hexdigest()


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/dense_perception``, else ``~/.cache/dense_perception``; not created.

    Whatever lies in it may vanish or be damaged at any time.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    # Where nobody has a home "~" stays: a path that cannot be written, not one under "./~".
    return Path(root if os.path.isabs(root) else os.devnull) / _FOLDER


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from the cache; empty where it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Mapping[str, Any]) -> bool:
    """Replace a cache file in one step; ``False`` where the disk does not allow it.

    A read-only or full home must not stop a robot, so a failure is only reported.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(data, indent=1))
    except OSError:
        return False
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
