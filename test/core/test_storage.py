"""Whole files or none, hashes, and a cache that may be missing, damaged or unwritable."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dense_perception.core import storage
from dense_perception.core.errors import ArtefactError, InputError
from dense_perception.core.storage import (
    atomic_write,
    atomic_write_text,
    cache_dir,
    file_sha256,
    open_own,
    prepare_output_folder,
    read_json,
    scratch_folder,
    user_path,
    why_untrusted,
    write_json,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(path) as stream:
            stream.write(b"half of the n")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_removed_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BEGINNING_S", 0.0)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from dense_perception.core.storage import atomic_write, scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), '.export-'), \\\n"
        "    atomic_write(Path(sys.argv[1], 'file')) as stream:\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    (tmp_path / ".other.abcdefgh.tmp").touch()

    def write() -> list[str]:
        monkeypatch.setattr(storage, "_LEFTOVERS", {})
        atomic_write_text(tmp_path / "file", "whole")
        with scratch_folder(tmp_path, ".export-"):
            pass
        return sorted(path.name for path in tmp_path.iterdir())

    try:
        assert len(write()) == 4  # both of the living writer are still there
    finally:
        writer.kill()
        writer.communicate()
    assert write() == [".other.abcdefgh.tmp", "file"]


def test_a_home_that_does_not_exist_is_a_plain_name() -> None:
    assert user_path("~nobody_of_that_name/x.onnx") == Path("~nobody_of_that_name/x.onnx")
    assert user_path("~/x").is_absolute()


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "file") as stream:
            stream.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_durable_write_reaches_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: synced.append((os.fstat(handle).st_size, path.exists()))
    )
    with atomic_write(path) as stream:
        stream.write(b"x")
    assert not synced
    path.unlink()
    with atomic_write(path, durable=True) as stream:
        stream.write(b"12345")
    assert synced == [(5, False)]
    assert path.read_bytes() == b"12345"


def test_text_is_written_in_utf8_and_without_translation(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "file", "a\r\n\u00fc")
    assert (tmp_path / "file").read_bytes() == b"a\r\n\xc3\xbc"


def test_hash_of_a_file_whose_size_and_time_stay_the_same(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    status = path.stat()
    # FIPS 180-2, appendix B.1
    first = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == first
    path.write_bytes(b"abd")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_sha256(path) != first
    with pytest.raises(ArtefactError, match=r"cannot read .*absent"):
        file_sha256(tmp_path / "absent")


def test_output_folder(tmp_path: Path) -> None:
    prepare_output_folder(tmp_path / "a/b", overwrite=False)
    prepare_output_folder(tmp_path / "a/b", overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        prepare_output_folder(tmp_path / "a", overwrite=False)
    prepare_output_folder(tmp_path / "a", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file or lies in one, expected a folder"):
        prepare_output_folder(tmp_path / "file", overwrite=True)


def test_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "dense_perception"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/invalid")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home/.cache/dense_perception"


def test_nobody_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert not write_json(cache_dir() / "a.json", {"a": 1})
    assert read_json(cache_dir() / "a.json") == {}
    assert not Path("~").exists()


def test_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/a.json"
    assert write_json(path, {"a": 1.5})
    assert read_json(path) == {"a": 1.5}
    for junk in (b"", b"{", b"[1]", b"\xff\xfe", b"null"):
        path.write_bytes(junk)
        assert read_json(path) == {}


def test_a_cache_that_others_can_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "cache/a.json"
    assert write_json(path, {"a": 1})
    assert why_untrusted(path.parent) == ""
    for mode in (0o777, 0o1777, 0o702):  # a sticky folder lets others add files
        path.parent.chmod(mode)
        assert "can be written by everybody" in why_untrusted(path.parent)
        assert read_json(path) == {}
        assert not write_json(path, {"a": 2})
    path.parent.chmod(0o700)
    assert read_json(path) == {"a": 1}
    path.chmod(0o666)
    assert read_json(path) == {}


def test_folders_above_count_but_for_sticky_ones(tmp_path: Path) -> None:
    folder = tmp_path / "shared/mine"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)
    assert str(folder.parent) in why_untrusted(folder)
    folder.parent.chmod(0o1777)
    assert why_untrusted(folder) == ""
    assert why_untrusted(folder / "not/yet/made") == ""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("given", ["cache", "cache/a.json"])
def test_what_belongs_to_another_user_is_not_believed(tmp_path: Path, given: str) -> None:
    path = tmp_path / "cache/a.json"
    assert write_json(path, {"a": 1})
    os.chown(tmp_path / given, 4321, -1)
    assert read_json(path) == {}
    with pytest.raises(PermissionError, match="belongs to the user 4321"), open_own(path):
        pass


def test_links_and_special_files_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with (
            pytest.raises(OSError, match=r"levels of symbolic links|not a regular"),
            open_own(tmp_path / name),
        ):
            pass


def test_deep_and_huge_json_is_an_empty_cache(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text in ("[" * 200_000, '{"a":' * 100_000, '"' + "x" * (5 << 20) + '"'):
        path.write_text(text)
        assert read_json(path) == {}
