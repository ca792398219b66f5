"""One file from the network or a mirror to its final name: whole and checked, or not at all.

pooch drives the retries and the final move; the transfer itself resumes a part that an earlier
attempt left, which pooch does not do. Proxies are those of the environment (``HTTPS_PROXY``, ...).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import urlsplit

from dense_perception.core.card_specs import CheckpointSource, OnnxSource
from dense_perception.core.errors import ArtefactError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import (
    atomic_write,
    cache_dir,
    file_sha256,
    read_json,
    scratch_folder,
    user_path,
    write_json,
)

PublishedFile: TypeAlias = CheckpointSource | OnnxSource

MIRROR_VARIABLE = "DENSE_PERCEPTION_MIRROR"
"""Environment variable with a folder, or the address of one, that holds the files by name."""

_BLOCK = 1 << 20
_CONNECT_S = 10.0
_GONE = (401, 403, 404, 410, 451)


class _Final(Exception):
    """Carries an error past pooch, which would take it for a reason to try again."""

    def __init__(self, error: ArtefactError) -> None:
        super().__init__(str(error))
        self.error = error


def download(
    source: PublishedFile,
    folder: Path,
    *,
    mirror: str = "",
    model: str = "",
    shared: bool = False,
    progress: bool = True,
    retries: int = 3,
    stall_s: float = 30.0,
) -> Path:
    """The checked file in ``folder``; nothing is transferred if it is there already.

    :param mirror: folder or address to take ``source.file`` from, instead of the source's address.
        There it may also be in a folder named ``model``, and must be if the name is ``shared``.
    :param shared: several models' files have this name, and nothing but their folder tells them
        apart.
    :param retries: further attempts after a broken connection; each resumes.
    :param stall_s: an attempt fails after so many seconds without a byte.
    :raises ArtefactError: if it cannot be had, is another file than the source says, or does not
        fit on the disk: with what to do. No file is left under the final name then.
    """
    target = folder / source.file
    if target.is_file():
        _verify(target, source, target)
        _compare_with_first(target, source)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(_cannot_write(folder, error)) from error
    if mirror and "://" not in mirror:
        _copy(_in_folder(user_path(mirror), source, model, shared), target, source)
        _compare_with_first(target, source)
        return target
    place = f"{model}/{source.file}" if shared else source.file
    url = f"{mirror.rstrip('/')}/{place}" if mirror else source.url
    _transfer(url, target, source, progress, retries, stall_s)
    _compare_with_first(target, source)
    return target


def _transfer(
    url: str,
    target: Path,
    source: PublishedFile,
    progress: bool,
    retries: int,
    stall_s: float,
) -> None:
    import pooch
    import requests

    part = target.with_name(f".{target.name}.part")
    pooch.get_logger().setLevel("ERROR")

    def downloader(address: str, output: str, _: Any) -> None:
        try:
            with _exclusive(part) as stream:
                _resume(address, source.url, stream, part, progress, stall_s)
            _verify(part, source, target)
            os.replace(part, output)
        except ArtefactError as error:
            raise _Final(error) from error.__cause__

    try:
        # pooch makes files of its own beside the final one, which stay if we are killed.
        with scratch_folder(target.parent, ".fetch-") as folder:
            fetcher = pooch.create(
                path=folder,
                base_url="",
                registry={target.name: None},
                urls={target.name: url},
                retry_if_failed=retries,
            )
            fetcher.fetch(target.name, downloader=downloader)
            os.replace(folder / target.name, target)
    except _Final as final:
        raise final.error from final.__cause__
    except requests.exceptions.RequestException as error:
        raise ArtefactError(
            f"cannot download {source.file} from {_host(url)}: {_plain(error)}. "
            f"{_kept(part)}{_offline(source.url, target)}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # A disk filled to the last byte harms the whole robot; the part is worth less.
            part.unlink(missing_ok=True)
        raise ArtefactError(_cannot_write(target, error)) from error
    finally:
        if not (part.is_file() and part.stat().st_size):
            part.unlink(missing_ok=True)
            _version_file(part).unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    """Keeps what the server called the version that the part is of."""
    return part.with_name(part.name + ".version")


def _resume(
    url: str, published: str, stream: BinaryIO, part: Path, progress: bool, stall_s: float
) -> None:
    """Append what is missing to the part, or start it again where the server cannot resume.

    ``published`` is where the file comes from, if ``url`` is a mirror's.
    """
    import requests
    from tqdm import tqdm

    have = stream.seek(0, os.SEEK_END)
    headers = {"Accept-Encoding": "identity"}
    version = _version_file(part)
    if have and version.is_file():
        # A file that has changed meanwhile is sent whole instead.
        headers.update({"Range": f"bytes={have}-", "If-Range": version.read_text()})
    with requests.get(
        url, headers=headers, stream=True, timeout=(min(_CONNECT_S, stall_s), stall_s)
    ) as response:
        if response.status_code == 416:
            stream.truncate(0)
            raise requests.exceptions.ConnectionError("the server does not know that range")
        if response.status_code in _GONE:
            raise ArtefactError(
                f"{_host(url)} answers {response.status_code} {response.reason} for {url}: the "
                f"file has moved or needs a login. {_offline(published, part)}"
            )
        response.raise_for_status()
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise ArtefactError(
                f"{_host(url)} answers with a web page instead of {url}: the file has moved, or a "
                f"login page or proxy is in between. {_offline(published, part)}"
            )
        resumed = response.status_code == 206 and response.headers.get(
            "Content-Range", ""
        ).startswith(f"bytes {have}-")
        if not resumed:
            have = 0
            stream.seek(0)
            stream.truncate()
            etag = response.headers.get("ETag", "")
            tag = response.headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag
            if tag:
                version.write_text(tag)
            else:
                version.unlink(missing_ok=True)
        stated = response.headers.get("Content-Length", "")
        length = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 19 else 0
        free = shutil.disk_usage(part.parent).free
        if length > free:
            raise OSError(
                errno.ENOSPC, f"{length / 1e6:.0f} MB are missing, {free / 1e6:.0f} MB free"
            )
        with tqdm(
            total=have + length if length else None,
            initial=have,
            unit="B",
            unit_scale=True,
            desc=part.name[1:].removesuffix(".part"),
            disable=None if progress else True,
        ) as bar:
            received = 0
            for block in response.iter_content(_BLOCK):
                stream.write(block)
                received += len(block)
                bar.update(len(block))
        stream.flush()
        if length and received < length:
            raise requests.exceptions.ConnectionError("the connection ended early")


@contextmanager
def _exclusive(part: Path) -> Iterator[BinaryIO]:
    """The part opened for appending, by one process at a time."""
    with open(part, "ab") as stream:
        try:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such lock on this system
            pass
        except OSError as error:
            raise ArtefactError(
                f"another process is downloading {part.name[1:]}: wait for it"
            ) from error
        yield stream


def _in_folder(mirror: Path, source: PublishedFile, model: str, shared: bool) -> Path:
    """The file in a mirror's folder.

    :raises ArtefactError: if it is not there.
    """
    places = [mirror / model / source.file] if model else []
    if not shared:
        places.append(mirror / source.file)
    for place in places:
        if place.is_file():
            return place
    where = f"{model}/{source.file}" if shared else source.file
    why = f" (several models' files are called {source.file})" if shared else ""
    raise ArtefactError(
        f"the mirror {mirror} has no file {where}{why}: copy it there from {source.url}, or leave "
        f"out --mirror and {MIRROR_VARIABLE}"
    )


def _copy(origin: Path, target: Path, source: PublishedFile) -> None:
    _verify(origin, source, target)
    try:
        with open(origin, "rb") as read, atomic_write(target) as write:
            shutil.copyfileobj(read, write, _BLOCK)
    except OSError as error:
        raise ArtefactError(_cannot_write(target, error)) from error


def _verify(path: Path, source: PublishedFile, target: Path) -> None:
    """Compare with the published digest, or see that an ONNX file is one.

    A downloaded part that is another is removed. An ONNX file without a digest is trusted as it is
    first seen, so that a login page or half a file must not be what is seen first.
    """
    wrong = _what_is_wrong(path, source)
    if not wrong:
        return
    if path.name.endswith(".part"):
        path.unlink(missing_ok=True)
        cure = "it was thrown away; try again, or another mirror"
    else:
        cure = f"remove it and fetch {target.name} again"
    name = target.name if path.name.endswith(".part") else str(path)
    raise ArtefactError(f"{name} {wrong}: {cure}")


def _what_is_wrong(path: Path, source: PublishedFile) -> str:
    if source.sha256:
        digest = file_sha256(path)
        if digest.startswith(source.sha256):
            return ""
        return f"has SHA-256 {digest[:12]}..., published is {source.sha256[:12]}..."
    if not source.file.endswith(".onnx"):
        return ""
    try:
        OnnxFile.read(path)
    except ArtefactError as error:
        return f"is no ONNX file that can be used ({str(error).removeprefix(f'{path} ')})"
    return ""


def _compare_with_first(target: Path, source: PublishedFile) -> None:
    """Where no digest is published, the file must stay what it was when it was first seen here.

    :raises ArtefactError: if it is another by now.
    """
    if source.sha256:
        return
    memory = cache_dir() / "first_seen.json"
    known, digest = read_json(memory), file_sha256(target)
    first = known.get(str(target.resolve()), digest)
    if first != digest:
        raise ArtefactError(
            f"{target} has SHA-256 {digest[:12]}..., it was {str(first)[:12]}... when it was first "
            f"seen here: remove it and {memory}, and fetch it again"
        )
    write_json(memory, {**known, str(target.resolve()): digest})


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _offline(url: str, target: Path) -> str:
    name = target.name.removeprefix(".").removesuffix(".part")
    return (
        f"On a machine without a network: download {url} elsewhere, put it into a folder as {name} "
        f"and give that folder with --mirror or {MIRROR_VARIABLE}."
    )


def _kept(part: Path) -> str:
    size = part.stat().st_size if part.is_file() else 0
    return f"{size / 1e6:.1f} MB are kept and the next attempt goes on there. " if size else ""


def _plain(error: Exception) -> str:
    import requests

    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error).lower():
        return "it stopped answering"
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"it answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses; check HTTPS_PROXY"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted; check the clock and REQUESTS_CA_BUNDLE"
    return f"the connection failed ({type(error).__name__})"


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}; free some space or set XDG_CACHE_HOME to "
        "a folder on another disk"
    )
