"""Domains, the transport's environment and child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dense_perception.core.errors import BackendError, InputError
from dense_perception.ros.processes import ChildProcess, resident_mb
from dense_perception.ros.transport import default_profile, reserved_domain, transport_environment


def test_domains_are_not_shared_while_held() -> None:
    with reserved_domain() as first, reserved_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, 102))
        code = (
            "from dense_perception.ros.transport import reserved_domain\n"
            "from contextlib import ExitStack\n"
            "with ExitStack() as stack:\n"
            "    held = [stack.enter_context(reserved_domain()) for _ in range(20)]\n"
            "print(*held)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert not {first, second} & set(map(int, output.split()))


def test_domain_locks_follow_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / f"dense_perception_domains_{os.getuid()}"
    folder.mkdir(mode=0o700)
    for domain in range(1, 101):
        (folder / str(domain)).symlink_to(victim)
    with reserved_domain() as domain:
        assert domain == 101
    folder.chmod(0o777)  # now others may write there
    with reserved_domain() as domain:
        assert (tmp_path / "cache/dense_perception/domains" / str(domain)).is_file()
    (tmp_path / "cache/dense_perception/domains").chmod(0o777)
    with pytest.raises(InputError, match="no folder for locks is ours"), reserved_domain():
        pass
    assert victim.read_text() == "precious"


def test_profile_has_a_large_shared_segment_and_a_network_transport() -> None:
    root = ElementTree.parse(default_profile()).getroot()
    spaces = {"dds": "http://www.eprosima.com"}
    kinds = [each.text for each in root.iterfind(".//dds:transport_descriptor/dds:type", spaces)]
    assert sorted(kinds) == ["SHM", "UDPv4"]
    assert int(root.findtext(".//dds:segment_size", "0", spaces)) == 64 << 20
    declared = {
        each.text for each in root.iterfind(".//dds:transport_descriptor/dds:transport_id", spaces)
    }
    used = {each.text for each in root.iterfind(".//dds:userTransports/dds:transport_id", spaces)}
    assert declared == used


def test_transport_environment(tmp_path: Path) -> None:
    path = str(default_profile())
    assert transport_environment(None, {}) == {"FASTDDS_DEFAULT_PROFILES_FILE": path}
    for distribution in ("humble", "jazzy"):
        known = {"ROS_DISTRO": distribution}
        assert transport_environment(None, known) == {"FASTRTPS_DEFAULT_PROFILES_FILE": path}
    assert transport_environment("", {}) == {}
    assert transport_environment(None, {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
    own = tmp_path / "own.xml"
    with pytest.raises(InputError, match="there is no transport profile"):
        transport_environment(own, {})
    own.write_text("<dds/>")
    assert transport_environment(own, {}) == {"FASTDDS_DEFAULT_PROFILES_FILE": str(own)}


STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> ChildProcess:
    (tmp_path / "little_script.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ChildProcess("little_script", [], log=tmp_path / "log", patience_s=0.3)


def test_a_stubborn_child_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_script(tmp_path, monkeypatch, STUBBORN) as child:
        child.wait_for_text("ready")
        assert resident_mb(child.pid) > 1
    assert child.returncode == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL


def test_a_child_that_fails_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = run_script(tmp_path, monkeypatch, "raise SystemExit('the reason')")
    with pytest.raises(BackendError, match=r"ended with code 1.*\n.*\n?the reason"):
        child.wait_for_text("ready")
    child.stop()


def test_a_silent_child_is_too_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_script(tmp_path, monkeypatch, STUBBORN) as child:
        child.wait_for_text("ready")
        with pytest.raises(BackendError, match="did not print 'never' within"):
            child.wait_for_text("never", timeout_s=0.05)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from dense_perception.ros.processes import ChildProcess\n"
        "child = ChildProcess('http.server', ['0'], log=Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _lives(child):
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
