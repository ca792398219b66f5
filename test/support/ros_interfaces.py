"""Message packages that ROS 2 has and the wheels lack, built for the tests with ROS' own generator.

Their fields are those of the published packages, so that what a test sends and receives has the
published wire format.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rclpy

# package: (packages whose types it uses, message: its fields)
INTERFACES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "vision_msgs": (
        ("std_msgs", "geometry_msgs"),
        {
            "Point2D": "float64 x\nfloat64 y\n",
            "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
            "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
            "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
            "ObjectHypothesis": "string class_id\nfloat64 score\n",
            "ObjectHypothesisWithPose": (
                "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
            ),
            "Detection2D": (
                "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
                "vision_msgs/BoundingBox2D bbox\nstring id\n"
            ),
            "Detection3D": (
                "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
                "vision_msgs/BoundingBox3D bbox\nstring id\n"
            ),
            "Detection2DArray": ("std_msgs/Header header\nvision_msgs/Detection2D[] detections\n"),
            "Detection3DArray": ("std_msgs/Header header\nvision_msgs/Detection3D[] detections\n"),
            "VisionClass": "uint16 class_id\nstring class_name\n",
            "LabelInfo": (
                "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
            ),
        },
    ),
    "bond": (
        ("std_msgs",),
        {
            "Status": (
                "std_msgs/Header header\nstring id\nstring instance_id\nbool active\n"
                "float32 heartbeat_timeout\nfloat32 heartbeat_period\n"
            ),
        },
    ),
    "tf2_msgs": (
        ("geometry_msgs",),
        {"TFMessage": "geometry_msgs/TransformStamped[] transforms\n"},
    ),
}


@contextmanager
def importable(package: str) -> Iterator[None]:
    """``package`` can be imported here and in child processes; built if need be."""
    if find_spec(package) is not None:
        yield
        return
    folder = built(package)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [each for each in sys.modules if each.split(".")[0] == package]:
            del sys.modules[name]
        os.environ["PYTHONPATH"] = before or ""  # empty is as good as unset


def built(package: str) -> Path:
    """The folder to import ``package`` from, built once for each environment.

    Processes that test beside each other wait for the one that builds.
    """
    used = [Path(__file__).read_text(), sys.version, str(Path(rclpy.__file__).stat().st_mtime_ns)]
    digest = hashlib.sha256("\n".join(used).encode()).hexdigest()[:16]
    home = Path(sys.prefix) if os.access(sys.prefix, os.W_OK) else Path.home() / ".cache"
    folder = home / "test_interfaces" / digest / package
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "built"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a killed test left
            build_interfaces(folder, package)
            done.touch()
    return folder


def build_interfaces(folder: Path, package: str) -> None:
    """Write an importable ``package`` below ``folder``, from :data:`INTERFACES`; takes seconds.

    In a process of its own, as the generators print and look for ROS in the environment.

    :raises AssertionError: where there is no compiler, or it fails, with its output.
    """
    assert shutil.which("g++"), "no C++ compiler: sudo apt install g++"
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), package],
        env={**os.environ, "AMENT_PREFIX_PATH": sys.prefix},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _build(folder: Path, package: str) -> None:
    used, messages = INTERFACES[package]
    root = folder / package
    _generate(root, package, used, messages)
    (root / "__init__.py").touch()
    headers = [folder, sysconfig.get_path("include"), np.get_include()]
    headers += [Path(sys.prefix) / "include", *sorted((Path(sys.prefix) / "include").iterdir())]
    flags = ["-fPIC", "-O0", *(f"-I{each}" for each in headers)]
    # Most of the time goes into the headers of C++, which its sources can share.
    together = root / "together.cpp"
    together.write_text("".join(f'#include "{each}"\n' for each in sorted(root.rglob("*.cpp"))))
    sources = [*sorted(root.rglob("*.c")), together]
    libraries = [f"{each}__rosidl_{kind}" for each in used for kind in _LIBRARIES_OF_A_PACKAGE]
    libraries += _LIBRARIES
    prefix = Path(sys.prefix) / "lib"
    target = root / f"{package}_s__rosidl_typesupport_c{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = list(_compiled(sources, flags))
    link = ["g++", "-shared", *map(str, objects), f"-L{prefix}", f"-Wl,-rpath,{prefix}"]
    subprocess.run([*link, *(f"-l{each}" for each in libraries), "-o", str(target)], check=True)


_LIBRARIES_OF_A_PACKAGE = ("generator_c", "generator_py", "typesupport_fastrtps_c")
_LIBRARIES = ("rosidl_runtime_c", "rosidl_typesupport_c", "rosidl_typesupport_fastrtps_c")
_LIBRARIES += ("rosidl_typesupport_fastrtps_cpp", "fastcdr", "rcutils")


def _compiled(sources: list[Path], flags: list[str]) -> Iterator[Path]:
    for source in sources:
        target = source.with_suffix(source.suffix + ".o")
        compiler = ["gcc"] if source.suffix == ".c" else ["g++", "-std=c++17"]
        subprocess.run([*compiler, *flags, "-c", str(source), "-o", str(target)], check=True)
        yield target


def _generate(root: Path, package: str, used: tuple[str, ...], messages: dict[str, str]) -> None:
    from rosidl_cli.command.translate.api import translate
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport

    definitions = root / "definitions" / "msg"
    definitions.mkdir(parents=True)
    for name, content in messages.items():
        (definitions / f"{name}.msg").write_text(content)
    share = Path(sys.prefix) / "share"
    include = [str(share / each) for each in ("builtin_interfaces", "std_msgs", *used)]
    idl = translate(
        package_name=package,
        interface_files=[f"{definitions.parent}:msg/{name}.msg" for name in messages],
        include_paths=include,
        output_format="idl",
        output_path=root / "idl",
    )
    only_fast_dds = ["rosidl_typesupport_fastrtps_c"]
    for generator in (
        GenerateC("c"),
        GenerateCTypesupport("c", typesupport_implementations=only_fast_dds),
        GenerateFastRTPSCTypesupport("fastrtps_c"),
        GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]),
    ):
        generator.generate(package, list(idl), include, root)


if __name__ == "__main__":
    _build(Path(sys.argv[1]).resolve(), sys.argv[2])
