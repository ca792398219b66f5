"""Downloads from a local server that misbehaves on purpose."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dense_perception.core.card_specs import CheckpointSource
from dense_perception.core.errors import ArtefactError
from dense_perception.hub.download import download

BODY = bytes(range(256)) * 8192  # two megabytes
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


class Server:
    """Serves BODY as /weights.pth; ``mood`` is the mischief, ``requests`` what was asked."""

    def __init__(self) -> None:
        self.mood = "good"
        self.etag = '"one"'
        self.requests: list[str] = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append(self.headers.get("Range", ""))
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/weights.pth"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body, status, kind = BODY, 200, "application/octet-stream"
        if self.mood == "missing":
            body, status = b"no", 404
        elif self.mood == "portal":
            body, kind = b"<html>please log in</html>", "text/html; charset=utf-8"
        elif self.mood == "busy once":
            self.mood = "good"
            body, status = b"", 503
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if wanted and status == 200 and handler.headers.get("If-Range") == self.etag:
            start, status = int(wanted[1]), 206
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        length = "abc" if self.mood == "senseless length" else str(len(body) - start)
        handler.send_header("Content-Length", length)
        handler.send_header("ETag", self.etag)
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Connection", "close")
        handler.end_headers()
        if self.mood in ("breaks once", "breaks", "stalls"):
            handler.wfile.write(body[start : start + len(body) // 2])
            handler.wfile.flush()
            if self.mood == "stalls":
                self.release.wait(30)
            elif self.mood == "breaks once":
                self.mood = "good"
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            handler.wfile.write(body[start:])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.release.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch sleeps between attempts; proxies of the test machine must not interfere."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def source(server: Server | None, sha256: str = DIGEST) -> CheckpointSource:
    url = server.url if server else "http://127.0.0.1:9/weights.pth"
    return CheckpointSource(url, "weights.pth", sha256)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("published", [DIGEST, DIGEST[:8], ""])
def test_a_file_arrives_whole_and_once(server: Server, tmp_path: Path, published: str) -> None:
    path = download(source(server, published), tmp_path, progress=False)
    assert path.read_bytes() == BODY
    assert names(tmp_path) == ["weights.pth"]
    download(source(server, published), tmp_path, progress=False)
    assert len(server.requests) == 1


def test_a_broken_connection_resumes(server: Server, tmp_path: Path) -> None:
    server.mood = "breaks once"
    path = download(source(server), tmp_path, progress=False)
    assert path.read_bytes() == BODY
    assert server.requests == ["", f"bytes={len(BODY) // 2}-"]


def test_a_senseless_length_is_an_unknown_one(server: Server, tmp_path: Path) -> None:
    server.mood = "senseless length"
    assert download(source(server, DIGEST), tmp_path, progress=False).read_bytes() == BODY


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.mood = "busy once"
    assert download(source(server), tmp_path, progress=False).read_bytes() == BODY


def test_a_later_run_goes_on_where_the_first_stopped(server: Server, tmp_path: Path) -> None:
    server.mood = "breaks"
    with pytest.raises(ArtefactError, match=r"1\.0 MB are kept and the next attempt goes on there"):
        download(source(server), tmp_path, progress=False, retries=0)
    assert "weights.pth" not in names(tmp_path)
    server.mood = "good"
    assert download(source(server), tmp_path, progress=False).read_bytes() == BODY
    assert server.requests[-1] == f"bytes={len(BODY) // 2}-"


def test_a_file_that_changed_meanwhile_starts_again(server: Server, tmp_path: Path) -> None:
    server.mood = "breaks"
    with pytest.raises(ArtefactError):
        download(source(server, ""), tmp_path, progress=False, retries=0)
    server.mood, server.etag = "good", '"two"'
    assert download(source(server, ""), tmp_path, progress=False).read_bytes() == BODY


def test_a_stalled_server_is_given_up(server: Server, tmp_path: Path) -> None:
    server.mood = "stalls"
    with pytest.raises(ArtefactError, match=r"it stopped answering\..*--mirror") as caught:
        download(source(server), tmp_path, progress=False, retries=0, stall_s=0.3)
    assert "DENSE_PERCEPTION_MIRROR" in str(caught.value)
    assert "weights.pth" not in names(tmp_path)


@pytest.mark.parametrize(
    ("mood", "complaint"),
    [("missing", "answers 404 .*moved or needs a login"), ("portal", "web page instead of")],
)
def test_what_retrying_cannot_cure_fails_at_once(
    server: Server, tmp_path: Path, mood: str, complaint: str
) -> None:
    server.mood = mood
    with pytest.raises(ArtefactError, match=complaint):
        download(source(server), tmp_path, progress=False)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"SHA-256 .* published is 00000000"):
        download(source(server, "00000000"), tmp_path, progress=False)
    assert len(server.requests) == 1
    assert "weights.pth" not in names(tmp_path)
    assert ".weights.pth.part" not in names(tmp_path)


def test_a_damaged_file_on_disk_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=r"remove it and fetch weights\.pth again"):
        download(source(server), tmp_path, progress=False)
    assert (tmp_path / "weights.pth").read_bytes() == b"something else"


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"the connection failed.*without a network"):
        download(source(None), tmp_path, progress=False, retries=1)
    assert names(tmp_path) == []


def test_a_full_disk_is_found_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "dense_perception.hub.download.shutil.disk_usage", lambda _: usage._replace(free=1000)
    )
    with pytest.raises(ArtefactError, match="free some space or set XDG_CACHE_HOME"):
        download(source(server), tmp_path, progress=False)
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_on_the_way(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, block: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def exclusive(part: Path) -> Iterator[Full]:
        part.write_bytes(BODY[:1000])
        yield Full()

    monkeypatch.setattr("dense_perception.hub.download._exclusive", exclusive)
    with pytest.raises(ArtefactError, match="No space left on device; free some space"):
        download(source(server), tmp_path, progress=False)
    assert names(tmp_path) == []


def test_a_local_mirror_is_copied_and_checked(tmp_path: Path) -> None:
    mirror, cache = tmp_path / "usb", tmp_path / "cache"
    mirror.mkdir()
    with pytest.raises(ArtefactError, match=r"has no file weights\.pth: copy it there"):
        download(source(None), cache, mirror=str(mirror))
    (mirror / "weights.pth").write_bytes(BODY)
    assert download(source(None), cache, mirror=str(mirror)).read_bytes() == BODY
    (mirror / "weights.pth").write_bytes(BODY[:-1])
    with pytest.raises(ArtefactError, match="published is"):
        download(source(None), tmp_path / "other", mirror=str(mirror))
    assert names(tmp_path / "other") == []


def test_a_mirror_by_address(server: Server, tmp_path: Path) -> None:
    address = server.url.rpartition("/")[0] + "/"
    assert download(source(None), tmp_path, mirror=address, progress=False).read_bytes() == BODY


def test_a_shared_name_is_told_apart_by_the_models_folder(tmp_path: Path) -> None:
    mirror = tmp_path / "usb"
    (mirror / "one").mkdir(parents=True)
    (mirror / "weights.pth").write_bytes(b"of another model")
    with pytest.raises(ArtefactError, match=r"no file two/weights\.pth \(several models"):
        download(source(None), tmp_path / "a", mirror=str(mirror), model="two", shared=True)
    (mirror / "one/weights.pth").write_bytes(BODY)
    found = download(source(None), tmp_path / "b", mirror=str(mirror), model="one", shared=True)
    assert found.read_bytes() == BODY


def test_a_mirror_that_lacks_the_file_advises_the_publishers_address(
    server: Server, tmp_path: Path
) -> None:
    server.mood = "missing"
    address = server.url.rpartition("/")[0]
    with pytest.raises(ArtefactError) as refusal:
        download(source(None), tmp_path, mirror=address, progress=False)
    # The publisher's, not the mirror's own, from which there is nothing to be had.
    assert f"download {source(None).url} elsewhere" in str(refusal.value)


def test_a_file_without_a_published_digest_must_stay_what_it_was(
    server: Server, tmp_path: Path
) -> None:
    unstated = source(server, "")
    path = download(unstated, tmp_path / "w", progress=False)
    path.write_bytes(b"another")
    with pytest.raises(ArtefactError, match="when it was first seen here"):
        download(unstated, tmp_path / "w", progress=False)
