"""The images cannot be built in a test; what they are built from and their scripts can be run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from test.support.setup_script import described_by_setup

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
# A stand-in for the system's Python with NumPy 1.26, and for the environment that it makes: it
# records what pip is asked for and lays down the files that pip would.
PYTHON = """#!/usr/bin/env bash
set -e
case "$1 $2" in
    "-c "*) echo 1 ;;
    "-m venv")
        mkdir -p "$3/bin" "$3/lib/python3.12/site-packages/dense_perception"
        for name in python python3 pip {scripts}; do touch "$3/bin/$name"; done
        printf '#!/bin/sh\\necho "$@" > {record}\\n' > "$3/bin/python"
        chmod +x "$3/bin/python" ;;
    *) exit 9 ;;
esac
"""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return described_by_setup()


def in_context(path: str) -> bool:
    """Whether .dockerignore leaves a path to the build; the last line that fits it decides."""
    kept = True
    parts = PurePosixPath(path).parts
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        back, pattern = line.startswith("!"), line.removeprefix("!")
        anywhere = pattern.removeprefix("**/")
        assert pattern == "*" or not re.search(r"[*?\[\\]", anywhere), f"{line}: teach this test"
        fits = (
            pattern == "*"
            or (anywhere != pattern and anywhere in parts)
            or parts[: pattern.count("/") + 1] == PurePosixPath(pattern).parts
        )
        if fits:
            kept = back
    return kept


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    words = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name, rest) for name, rest in words]


def test_there_are_the_two_images() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile.desktop", "Dockerfile.jetson"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_and_called_is_there(dockerfile: Path) -> None:
    done = instructions(dockerfile)
    copied = [rest.split() for name, rest in done if name == "COPY" and "--from" not in rest]
    assert copied
    for *sources, _ in copied:
        for source in sources:
            assert (ROOT / source).exists()
            assert source == "." or in_context(source)
    for script in re.findall(r"/src/(\S+\.sh)", dockerfile.read_text()):
        assert os.access(ROOT / script, os.X_OK)
        assert in_context(script)
    stages = {rest.split()[-1] for name, rest in done if name == "FROM" and " AS " in rest}
    assert set(re.findall(r"--from=(\S+)", dockerfile.read_text())) <= stages


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_nodes_do_not_run_as_root(dockerfile: Path) -> None:
    stages = dockerfile.read_text().split("\nFROM ")
    users = re.findall(r"^USER (\S+)$", stages[-1], re.MULTILINE)
    assert users == ["1000:1000"]
    assert "mkdir -m 1777 /cache" in stages[-1]  # sticky: nobody replaces another user's folder


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_base_can_be_held_to_a_digest(dockerfile: Path) -> None:
    before, *stages = dockerfile.read_text().split("\nFROM ")
    assert stages[0].startswith("${BASE} AS base\n")
    assert re.search(r"^ARG BASE=\S+:\S+$", before, re.MULTILINE)
    built_on = {stage.split()[0] for stage in stages[1:]}
    assert built_on == {"base"}, "another image would come by its tag"
    assert 'LABEL org.opencontainers.image.base.name="${BASE}"' in stages[-1]


def digest(tmp_path: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """What docker/digest.sh makes of a registry's answer; ``docker`` writes down its arguments."""
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "{answer}"\n')
    fake.chmod(0o755)
    return subprocess.run(
        [str(DOCKER / "digest.sh"), "ros:kilted-ros-base@sha256:old"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def test_a_tag_becomes_the_digest_that_it_has_now(tmp_path: Path) -> None:
    number = f"sha256:{'0f' * 32}"
    assert digest(tmp_path, number).stdout == f"ros:kilted-ros-base@{number}\n"
    assert (tmp_path / "asked").read_text().endswith("{{.Manifest.Digest}} ros:kilted-ros-base\n")


def test_what_is_no_digest_is_not_built_on(tmp_path: Path) -> None:
    done = digest(tmp_path, "sha256:0f")
    assert (done.returncode, done.stdout) == (1, "")
    assert "answers 'sha256:0f' for ros:kilted-ros-base" in done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_commands_are_bash(dockerfile: Path) -> None:
    commands = [rest for name, rest in instructions(dockerfile) if name == "RUN"]
    assert commands
    for command in commands:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def test_the_build_gets_all_that_setup_installs(described: dict[str, Any]) -> None:
    installed = [file for _, files in described["data_files"] for file in files]
    installed += ["setup.py", "setup.cfg", "pyproject.toml"]
    for package in described["packages"]:
        installed += [str(path) for path in (ROOT / package.replace(".", "/")).glob("*.py")]
    installed += [str(path) for path in (ROOT / "dense_perception/demo").iterdir()]
    relative = [str(Path(ROOT, file).relative_to(ROOT)) for file in installed]
    lost = [path for path in relative if "__pycache__" not in path and not in_context(path)]
    assert len(relative) > 200
    assert lost == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "build/lib/dense_perception/cli.py",
        "corpora/rooms_train/0.npz",
        "runs/x/model.pt",
        "out/demo/table.txt",
        "test/conftest.py",
        "dense_perception/core/__pycache__/card.cpython-312.pyc",
    ],
)
def test_the_build_does_not_get(path: str) -> None:
    assert not in_context(path)


@pytest.mark.parametrize(
    ("gpu", "extras", "packages"),
    [
        ("none", "[openvino]", ""),
        ("rtx", "[openvino,tensorrt_rtx]", "nvidia-cuda-runtime "),
        ("nvidia", "[openvino]", "tensorrt "),
        ("jetson", "", ""),
    ],
)
def test_installation(
    tmp_path: Path, described: dict[str, Any], gpu: str, extras: str, packages: str
) -> None:
    scripts = [line.split(" = ")[0] for line in described["entry_points"]["console_scripts"]]
    record = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/python3"
    fake.write_text(PYTHON.format(scripts=" ".join(scripts), record=record))
    fake.chmod(0o755)
    venv = tmp_path / "venv"
    subprocess.run(
        [str(DOCKER / "install_package.sh"), "/src", str(venv), gpu],
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
        check=True,
    )
    held = "opencv-python-headless<5 numpy<2"  # ROS 2's cv_bridge and messages are built for these
    assert record.read_text() == f"-m pip install --no-cache-dir /src{extras} {packages}{held}\n"
    for extra in filter(None, extras.strip("[]").split(",")):
        assert extra in described["extras_require"]
    executables = list((venv / "lib/dense_perception").iterdir())
    assert sorted(path.name for path in executables) == sorted(scripts)
    assert all(path.is_file() for path in executables)
    assert [path.name for path in (venv / "ros_path").iterdir()] == ["dense_perception"]
    assert (venv / "ros_path/dense_perception").is_dir()


def test_an_unknown_gpu_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(DOCKER / "install_package.sh"), "/src", str(tmp_path / "venv"), "amd"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "GPU is 'amd', expected none, rtx, nvidia or jetson" in done.stderr
    assert not (tmp_path / "venv").exists()


def enter(tmp_path: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DOCKER / "entrypoint.sh"), "bash", "-c", command],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )


def test_the_entrypoint_finds_ros_and_the_package(tmp_path: Path) -> None:
    setup = tmp_path / "setup.bash"
    # Like the files of ROS 2 it reads a variable that is not set.
    setup.write_text('x="$NOT_SET"\nexport AMENT_PREFIX_PATH=/opt/ros/x PYTHONPATH=/opt/ros/x/py\n')
    venv = tmp_path / "venv"
    words = 'echo "$AMENT_PREFIX_PATH|$PYTHONPATH|${PATH%%:*}"; exit 7'
    done = enter(tmp_path, words, VIRTUAL_ENV=str(venv), ROS_SETUP=str(setup))
    assert done.returncode == 7
    expected = [f"{venv}:/opt/ros/x", f"{venv}/ros_path:/opt/ros/x/py", f"{venv}/bin"]
    assert done.stdout.strip().split("|") == expected


def test_the_entrypoint_says_what_is_missing(tmp_path: Path) -> None:
    done = enter(tmp_path, "true", VIRTUAL_ENV=str(tmp_path), ROS_DISTRO="nowhere")
    assert done.returncode == 2
    assert "there is no /opt/ros/nowhere/setup.bash" in done.stderr
    done = enter(tmp_path, "true", ROS_DISTRO="nowhere")
    assert done.returncode != 0
    assert "VIRTUAL_ENV" in done.stderr


def test_compose_starts_what_the_page_runs() -> None:
    """What `docker run` gets on the page and the service agree on; Docker itself is not here."""
    service = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["perception"]
    page = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    run = re.search(r"docker run --rm ((?:.*\\\n)*.*)\n```", page)
    assert run is not None
    for option in ("network", "ipc"):
        key = {"network": "network_mode"}.get(option, option)
        assert f"--{option} {service[key]}" in run[1]
    assert set(service["volumes"]) <= set(re.findall(r"-v (\S+)", run[1]))
    launch = " ".join(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in service["command"])
    assert run[1].endswith(f"dense_perception {launch}")
    build = service["build"]
    default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", build["dockerfile"])
    assert (DOCKER / build["context"] / default).is_file()
    assert service["stop_signal"] == "SIGINT"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "dense_perception.service"
    text = (ROOT / "config/systemd/dense_perception.service").read_text()
    unit.write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    said = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert not said
    named = re.search(r"ros2 launch dense_perception (\S+)", text)
    assert named is not None
    assert (ROOT / "launch" / named[1]).is_file()
