"""Compiled engines on disk: what an engine was built for is part of the file, and checked.

A file is one line of JSON (the key, the payload's SHA-256 and size) and the payload. It may be
damaged, belong to another device or vanish at any time: then it is as if it had never been. So it
is where others could have written it: loading an engine runs its code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypedDict, cast

from dense_perception.core.difference import Difference
from dense_perception.core.errors import ArtefactError, BackendError, UnavailableError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.storage import (
    atomic_write,
    cache_dir,
    make_own_folder,
    open_own,
    read_json,
    why_untrusted,
    write_json,
)

_MAGIC = "dense_perception engine 1"
_MAX_HEADER = 1 << 16
_LEAST_ROOM = 1 << 16  # bytes
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_log = logging.getLogger(__name__)
PROGRESS = "building: "
"""What a line begins with in which a process tells how far its build is."""


def compile_command(
    model: str, backend: str, precision: str, batch: int = 1, device: str = "gpu"
) -> str:
    """What a user types to build an engine for 1 to ``batch`` images, or to try it again."""
    text = f"dense-perception compile {shlex.quote(model)} --backend {backend}"
    text += f" --precision {precision}"
    if device.lower() not in ("gpu", "cuda", "auto"):  # which is what it takes by itself
        text += f" --device {device}"
    return f"`{text} --max-batch {batch}`" if batch > 1 else f"`{text}`"


UNUSED_DAYS = 90
"""An engine that was not used for so long goes when another is stored."""
MAX_GIGABYTES = 8
"""What all engines may take; beyond it those go that were not used for longest."""


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on; all but the precision decide whether it may be used.

    ``graph`` is the SHA-256 of the ONNX file, ``device`` the GPU's name, compute capability and
    driver, or the CPU with its features, ``profile`` the shapes it takes, ``options`` the rest.
    """

    graph: str
    runtime: str
    version: str
    device: str
    precision: str
    profile: str
    options: str = ""

    @property
    def digest(self) -> str:
        text = json_text(self, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        return engines_dir() / f"{self.graph[:12]}_{self.runtime}_{self.digest}.engine"

    def differences(self, other: EngineKey) -> list[str]:
        """Which entries differ, in words."""
        pairs = [(f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return [f"{name} {got!r} instead of {want!r}" for name, got, want in pairs if got != want]


class _Header(TypedDict, total=False):
    """The first line of a file; each entry may be missing or something else."""

    magic: str
    sha256: str
    bytes: int
    key: dict[str, str]


@dataclass(frozen=True)
class Engine:
    """A whole engine for ``key``. ``reason`` says why it was built anew, or that it was found."""

    key: EngineKey
    payload: bytes
    sha256: str
    built: bool
    reason: str
    problem: str = ""

    @property
    def identity(self) -> str:
        """What a self-check of exactly these bytes on this device is remembered under."""
        return f"{self.key.digest}-{self.sha256[:16]}"


class EngineMissingError(BackendError):
    """The cache has no engine that can be used, and none may be built now.

    ``key`` is what to build, for 1 to ``batch`` images; the message says why no stored one is used.
    """

    def __init__(self, key: EngineKey, reason: str, batch: int = 1) -> None:
        super().__init__(reason)
        self.key = key
        self.batch = batch


def engines_dir() -> Path:
    """Where engines are kept; not created."""
    return cache_dir() / "engines"


def find_engine(key: EngineKey) -> Engine | str:
    """The engine for ``key``, or why there is none that may be used."""
    if not key.path.is_file():
        untrusted = why_untrusted(engines_dir())
        return f"no engine of that folder is used: {untrusted}" if untrusted else _nearest(key)
    try:
        found, payload, digest = _read(key.path)
    except ValueError as error:
        return f"{key.path.name} is damaged ({error})"
    except OSError as error:
        return f"{key.path.name} cannot be read ({error.strerror})"
    if found != key:
        return f"{key.path.name} was built for another: {', '.join(found.differences(key))}"
    with contextlib.suppress(OSError):
        os.utime(key.path)  # says that it is in use
    return Engine(key, payload, digest, built=False, reason="found in the cache")


def obtain_engine(key: EngineKey, build: Callable[[], bytes]) -> Engine:
    """The engine for ``key`` from the cache, else a new one, stored for the next start.

    Of two processes that want the same engine one builds and the other waits for it. A cache that
    cannot be written costs only the next start's time: ``problem`` says what was wrong.

    :raises BackendError: what ``build`` raises.
    """
    with _only_one(key.path):
        found = find_engine(key)
        if isinstance(found, Engine):
            return found
        payload = build()
        digest, problem = store_engine(key, payload)
        return Engine(key, payload, digest, built=True, reason=found, problem=problem)


def obtain_engine_once(
    key: EngineKey, build: Callable[[], bytes], *, retry: str, again: bool = False
) -> Engine:
    """As :func:`obtain_engine`, but what could not be built is not tried another time.

    That the machine, its disk or the file was at fault (:class:`UnavailableError`, ``OSError``,
    :class:`ArtefactError`) says nothing about the key, and is not remembered.

    :param retry: the command that tries it again, for the message.
    :param again: forget what is remembered, and try it.
    :raises BackendError: what ``build`` raises, or that it failed before.
    """
    if again:
        forget_failure(key)
    elif reason := failed_build(key):
        raise BackendError(
            f"its engine could not be built before: {reason}; {retry} tries it again"
        )

    def build_once() -> bytes:
        # Of another process that this one waited for: what it found in minutes holds here, too.
        if reason := failed_build(key):
            raise BackendError(
                f"its engine could not be built, as another process has just found: {reason}; "
                f"{retry} tries it again"
            )
        try:
            return build()
        except (UnavailableError, ArtefactError, OSError):
            raise
        except Exception as error:
            # Before anybody who waits goes on.
            remember_failure(key, str(error) or type(error).__name__)
            raise

    try:
        return obtain_engine(key, build_once)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        cure = "; free space there or make it writable" if error.errno in _NO_ROOM else ""
        raise UnavailableError(
            f"its engine could not be built: {error.strerror or error}{where}{cure}"
        ) from error


def store_engine(key: EngineKey, payload: bytes) -> tuple[str, str]:
    """Write a whole file or none; returns the payload's SHA-256 and the problem, if any."""
    digest = hashlib.sha256(payload).hexdigest()
    header = {"magic": _MAGIC, "sha256": digest, "bytes": len(payload), "key": asdict(key)}
    try:
        make_own_folder(engines_dir())
        with atomic_write(key.path) as stream:
            stream.write(json_text(header).encode() + b"\n")
            stream.write(payload)
    except OSError as error:
        return digest, f"the engine was not stored in {engines_dir()}: {_unwritten(error)}"
    forget_failure(key)
    _forget_unused()
    return digest, ""


def why_not_storable() -> str:
    """Why an engine that is built now could not be kept; empty if it could, as far as one sees."""
    try:
        make_own_folder(engines_dir())
        with tempfile.TemporaryFile(dir=engines_dir()) as stream:
            stream.write(bytes(_LEAST_ROOM))
    except OSError as error:
        return f"nothing can be stored in {engines_dir()}: {_unwritten(error)}"
    return ""


def _unwritten(error: OSError) -> str:
    if error.errno == errno.EPERM:  # others could write there, and what to do is said
        return str(error.strerror)
    return (
        f"{error.strerror or error}; free space there or make it writable, or set XDG_CACHE_HOME "
        "to another folder"
    )


def remember_failure(key: EngineKey, reason: str) -> None:
    """Keep that the engine of ``key`` could not be built, so that no start tries it in vain."""
    if not write_json(_failure(key), {"reason": reason}):
        _log.warning(
            "that an engine could not be built is not kept in %s: each start tries it again; free "
            "space there or make it writable for you alone",
            engines_dir(),
        )


def not_loaded(key: EngineKey, refusal: str, retry: str) -> BackendError:
    """What to raise where an engine does not load right after its build, which is remembered."""
    problem = f"{refusal}, though it was built just now"
    remember_failure(key, problem)
    return BackendError(f"{problem}; {retry} tries it again")


def forget_failure(key: EngineKey) -> None:
    """Have the engine of ``key`` tried again, where it could not be built before."""
    with contextlib.suppress(OSError):
        _failure(key).unlink(missing_ok=True)


def failed_build(key: EngineKey) -> str:
    """Why the engine of ``key`` could not be built; empty if nobody tried in vain."""
    return str(read_json(_failure(key)).get("reason", ""))


def _failure(key: EngineKey) -> Path:
    return key.path.with_suffix(".failed.json")


def _forget_unused() -> None:
    """Remove what no start has used for :data:`UNUSED_DAYS`, and what is too much in all.

    Each version of a runtime, graph or driver leaves its own: a robot's disk would fill up. The
    newest engine stays, whatever its size. A process that has loaded an engine keeps it; one that
    wants it later builds it anew.
    """
    oldest, newest_first = time.time() - UNUSED_DAYS * 86400, []
    for pattern in ("*.engine", "*.lock", "*.check.json", "*.failed.json"):
        for path in engines_dir().glob(pattern):
            with contextlib.suppress(OSError):
                status = path.stat()
                if status.st_mtime < oldest:
                    path.unlink()
                elif path.suffix == ".engine":
                    newest_first.append((-status.st_mtime, status.st_size, path))
    total = 0
    for index, (_, size, path) in enumerate(sorted(newest_first)):
        total += size
        if index and total > MAX_GIGABYTES * 1e9:
            with contextlib.suppress(OSError):
                path.unlink()


def stored_keys(graph: str = "", runtime: str = "") -> Iterator[EngineKey]:
    """What the engines in the cache were built for, from their headers and sizes alone.

    Files that are not as long as their headers say are left out, as they are never used.
    """
    for path in sorted(engines_dir().glob(f"{graph[:12] or '*'}_{runtime or '*'}_*.engine")):
        with contextlib.suppress(OSError, ValueError), open_own(path) as stream:
            line = stream.readline(_MAX_HEADER)
            header = _header(line)
            size = os.fstat(stream.fileno()).st_size
            if size - len(line) == header.get("bytes"):
                yield _key(header)


def remembered_check(identity: str) -> Difference | None:
    """What the self-check of that engine found; ``None`` if it was never checked."""
    path = engines_dir() / f"{identity}.check.json"
    known = read_json(path)
    try:
        found = Difference(float(known["max_of_range"]), float(known["mean_of_range"]))
    except (KeyError, TypeError, ValueError):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # says that it is in use
    return found


def remember_check(identity: str, backend: str, found: Difference) -> bool:
    """Keep what the self-check of ``backend`` found; ``False`` if the cache cannot be written."""
    return write_json(
        engines_dir() / f"{identity}.check.json", {"backend": backend, **asdict(found)}
    )


def _read(path: Path) -> tuple[EngineKey, bytes, str]:
    with open_own(path) as stream:
        header = _header(stream.readline(_MAX_HEADER))
        payload = stream.read()
    if len(payload) != header.get("bytes"):
        raise ValueError(f"{len(payload)} bytes, expected {header.get('bytes')}")
    digest = hashlib.sha256(payload).hexdigest()
    if digest != header.get("sha256"):
        raise ValueError("its checksum is wrong")
    return _key(header), payload, digest


def _header(line: bytes) -> _Header:
    try:
        header = parse_json(line)
    except ValueError as error:
        raise ValueError("its header is unreadable") from error
    if not isinstance(header, dict) or header.get("magic") != _MAGIC:
        raise ValueError("its header is not one of this version")
    return cast(_Header, header)


def _key(header: _Header) -> EngineKey:
    try:
        return EngineKey(**{name: str(value) for name, value in header["key"].items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("its header names no key") from error


def _nearest(key: EngineKey) -> str:
    """How the most similar engine of this runtime differs."""
    others = [other.differences(key) for other in stored_keys(key.graph, key.runtime)]
    if not others:
        return "no engine of this graph and runtime is in the cache"
    return f"the cached engine has {', '.join(sorted(others, key=lambda entries: len(entries))[0])}"


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """One process at a time; a disk or a system without locks is no reason to stop."""
    handle = None
    try:
        import fcntl

        make_own_folder(path.parent)
        lock = path.with_suffix(".lock")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
