"""Files that are whole or absent, their hashes, and the cache folder that is ours alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.core.json_text import json_text, parse_json

_FOLDER = "dense_perception"
_BLOCK = 1 << 20
_MAX_JSON = 4 << 20
_MOST_BYTES = 4 << 30
_BEGINNING_S = 2.0
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_LEFTOVERS: dict[Path, list[str]] = {}


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A binary stream that becomes ``path`` when the block ends well, and vanishes otherwise.

    ``durable`` also waits until the disk has the bytes, so that they survive a power cut.

    :raises OSError: if the folder is missing or not writable, or the disk is full.
    """
    _remove_leftovers(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            _hold(handle)
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


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder in ``parent`` that goes when the block ends, or when the next one of ``prefix`` is
    made, if this process is killed.

    :raises OSError: if it cannot be made.
    """
    for path in parent.glob(f"{prefix}*"):
        if path.is_dir() and not path.is_symlink() and _is_left(path):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as temporary:
        handle = os.open(temporary, os.O_RDONLY)
        try:
            _hold(handle)
            yield Path(temporary)
        finally:
            os.close(handle)


def _hold(handle: int) -> None:
    """Show that what is written is no leftover, for as long as ``handle`` is open."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_left(path: Path) -> bool:
    """Whether a process that was killed left it; one that writes holds it, or begins just now."""
    try:
        import fcntl

        if time.time() - path.stat().st_mtime < _BEGINNING_S:
            return False
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _remove_leftovers(path: Path) -> None:
    """Half-written files that killed processes left of ``path``."""
    folder = path.parent
    if folder not in _LEFTOVERS:  # one look into each folder: it may have thousands of files
        try:
            names = [entry.name for entry in os.scandir(folder) if _TEMPORARY.fullmatch(entry.name)]
        except OSError:
            return
        _LEFTOVERS[folder] = names
    for name in _LEFTOVERS[folder]:
        match = _TEMPORARY.fullmatch(name)
        if match and match["name"] == path.name and _is_left(folder / name):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)


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


def refuse_pointer(path: Path) -> None:
    """Git LFS leaves small texts in place of large files that were not fetched.

    :raises ArtefactError: if the file is such a text, saying how to get the file itself, or is a
        pipe, a device or a socket.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return
        _require_regular(path)
        with open(path, "rb") as stream:
            start = stream.read(len(_LFS_POINTER))
    except InputError as error:
        raise ArtefactError(str(error)) from error
    except OSError:
        return  # its reader says what is wrong with it
    if start == _LFS_POINTER:
        raise ArtefactError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its "
            "repository, or download the file"
        )


def require_regular_file(path: Path) -> None:
    """Refuse what may never end or never answer: a pipe, a device, a socket, a folder.

    :raises InputError: if ``path`` is missing, no regular file (or a link to one), or a Git LFS
        pointer.
    """
    _require_regular(path)
    try:
        refuse_pointer(path)
    except ArtefactError as error:
        raise InputError(str(error)) from error


def read_file(path: Path, most_bytes: int = _MOST_BYTES) -> bytes:
    """The whole content of a file from the user.

    :raises InputError: as :func:`require_regular_file`, if it cannot be read, or is larger than
        ``most_bytes``.
    """
    require_regular_file(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > most_bytes:
        raise InputError(
            f"{path} is larger than {most_bytes >> 10} kB, which none of its kind is: is it "
            "another file?"
        )
    return content


def _require_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "pipe", stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise InputError(f"{path} is a {kind}, expected a regular file: copy its content to one")


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


def user_path(text: str) -> Path:
    """A path as a user gives it, ``~`` and ``~NAME`` replaced where there is such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user: then "~NAME" is the name of a file
        return Path(text)


def real_path(path: Path) -> Path:
    """``path`` absolute and without links; of links in a circle what can be told.

    ``Path.resolve`` raises for those.
    """
    return Path(os.path.realpath(path))


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/dense_perception``, else ``~/.cache/dense_perception``; not created.

    Whatever lies in it may vanish or be damaged at any time.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    # Where nobody has a home "~" stays: a path that cannot be written, not one under "./~".
    return Path(root if os.path.isabs(root) else os.devnull) / _FOLDER


def why_untrusted(folder: Path) -> str:
    """Why others may have changed what lies in ``folder``; empty where only we or root can.

    The folder and those above it, as far as they exist, must belong to us or to root and be
    writable for nobody else. A sticky folder above (``/tmp``) lets nobody replace what is ours. A
    group that is named as we are and has no other member (Debian's private groups) is ourselves.
    """
    if not hasattr(os, "getuid"):
        return ""
    plain, real = Path(os.path.abspath(folder)), real_path(folder)
    for place in dict.fromkeys((real, *real.parents, plain, *plain.parents)):
        try:
            status = place.lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{place} cannot be examined ({error.strerror or error})"
        sticky = place not in (real, plain) and status.st_mode & stat.S_ISVTX
        problem = _foreign(status, sticky=bool(sticky))
        if problem:
            return f"{place} {problem}"
    return ""


@contextlib.contextmanager
def open_own(path: Path) -> Iterator[BinaryIO]:
    """A regular file of the cache that only we or root can have written, for reading.

    :raises OSError: if it is missing, a link or a special file, or others can write to it or to
        its folder (:func:`why_untrusted`).
    """
    # Without O_NONBLOCK a FIFO in its place would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(errno.EPERM, "it is not a regular file", str(path))
        problem = _foreign(status) or why_untrusted(path.parent)
        if problem:
            raise PermissionError(errno.EPERM, f"others could have changed it: {problem}")
        yield stream


def make_own_folder(folder: Path) -> None:
    """Create a folder of the cache that nobody else can read or write.

    :raises OSError: if it cannot be made, or others can write to it (:func:`why_untrusted`).
    """
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
    problem = why_untrusted(folder)
    if problem:
        raise PermissionError(errno.EPERM, f"{problem}: make it yours alone (chown, chmod 700)")


def _foreign(status: os.stat_result, *, sticky: bool = False) -> str:
    """Which other user can change this file or folder, in words."""
    if not hasattr(os, "getuid"):
        return ""
    if status.st_uid not in (0, os.getuid()):
        return f"belongs to the user {status.st_uid}, not to {os.getuid()}"
    if sticky or stat.S_ISLNK(status.st_mode):
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid):
        return f"can be written by the group {status.st_gid}"
    return ""


def _is_private(group: int) -> bool:
    import grp
    import pwd

    try:
        entry, name = grp.getgrgid(group), pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from the cache; empty where it is missing, damaged, huge or not ours alone."""
    try:
        with open_own(path) as stream:
            text = stream.read(_MAX_JSON + 1)
        data = parse_json(text) if len(text) <= _MAX_JSON else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: Mapping[str, Any]) -> bool:
    """Replace a cache file in one step; ``False`` where the disk does not allow it.

    A read-only or full home must not stop a robot, so a failure is only reported.
    """
    try:
        make_own_folder(path.parent)
        atomic_write_text(path, json_text(data, indent=1))
    except OSError:
        return False
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
