"""package.xml, setup.py and the package itself agree: dependencies, version, files, tests."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dense_perception
from test.support.setup_script import ROOT, described_by_setup

PACKAGE = ROOT / "dense_perception"
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
# Keys of rosdep's python.yaml.
KEYS = {
    "numpy": "python3-numpy",
    "cv2": "python3-opencv",
    "yaml": "python3-yaml",
    "tqdm": "python3-tqdm",
    "jinja2": "python3-jinja2",
    "matplotlib": "python3-matplotlib",
    "onnxruntime": "python3-onnxruntime-pip",
    "rosbags": "python3-rosbags-pip",
}
# What only some users need: the module, its distribution and the extra of setup.py that brings it.
EXTRAS = {
    "openvino": ("openvino", "openvino"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt_rtx"),
    "av": ("av", "video"),
    "h5py": ("h5py", "datasets"),
    "scipy": ("scipy", "datasets"),
    "jinja2": ("Jinja2", "report"),
    "matplotlib": ("matplotlib", "report"),
    "ray": ("ray", "ray"),
    "rerun": ("rerun-sdk", "rerun"),
    "faster_coco_eval": ("faster-coco-eval", "detection"),
    "trackers": ("trackers", "tracking"),
    "pooch": ("pooch", "fetch"),
    "requests": ("requests", "fetch"),
    "torch": ("torch", "export"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "onnx_ir": ("onnx_ir", "export"),
    "safetensors": ("safetensors", "export"),
    "lightning_fabric": ("lightning-fabric", "train"),
    "mujoco": ("mujoco", "synthetic"),
    "trimesh": ("trimesh", "synthetic"),
    "fast_simplification": ("fast-simplification", "synthetic"),
    "PIL": ("Pillow", "synthetic"),
    "vizdoom": ("vizdoom", "synthetic"),
    "numba": ("numba", "synthetic"),
    "transformers": ("transformers", "dev"),
}
# What is used where it is found and belongs to somebody else's installation.
FOREIGN = {
    "tensorrt": "JetPack or NVIDIA's packages bring it",
    "torch_tensorrt": "for those who have PyTorch on the robot",
    "cv_bridge": "a fallback for encodings that the package does not know",
    "foxglove_msgs": "who publishes these videos has it installed",
    "ffmpeg_image_transport_msgs": "who publishes these videos has it installed",
    "supervision": "trackers needs it itself",
    "lz4": "rosbags needs it itself",
    "markupsafe": "Jinja2 needs it itself",
    "backports": "rosbags needs backports.zstd itself",
    "compression": "Python 3.14's own, in place of backports.zstd",
}
# Nothing imports these: `ros2 launch` and the entry points of older Pythons need them.
BY_CONVENTION = {"ros2launch", "python3-setuptools"}
_MESSAGES = re.compile(r"\b([a-z][a-z0-9_]*_(?:msgs|srvs|interfaces))[/.]")


def depends(tag: str) -> set[str]:
    return {str(element.text) for element in MANIFEST.iterfind(tag)}


def imported(path: Path) -> Iterator[str]:
    """The top-level modules that a source imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def used(path: Path) -> Iterator[str]:
    """What a source imports, and the ROS packages that its strings and its nodes name."""
    yield from imported(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _MESSAGES.findall(node.value)
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "package"
            and isinstance(node.value, ast.Constant)
        ):
            yield str(node.value.value)


def uses() -> dict[str, str]:
    """What the package and its launch files use from elsewhere, each with one file that does."""
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    found = {name: str(path.relative_to(ROOT)) for path in sources for name in used(path)}
    own = {"dense_perception", *sys.stdlib_module_names}
    return {name: path for name, path in found.items() if name not in own}


def test_the_scan_sees_late_named_and_launched_packages() -> None:
    found = uses()
    assert {"tf2_msgs", "vision_msgs", "rviz2", "launch_ros", "rclpy", "cv2"} <= set(found)


def test_every_use_has_its_dependency_in_package_xml() -> None:
    missing = {
        name: path
        for name, path in uses().items()
        if name not in EXTRAS
        and name not in FOREIGN
        and KEYS.get(name, name) not in depends("exec_depend")
    }
    assert missing == {}


def test_package_xml_names_nothing_that_is_not_used() -> None:
    needed = {KEYS.get(name, name) for name in uses()} | BY_CONVENTION
    assert depends("exec_depend") - needed == set()


def test_tests_use_no_ros_package_that_package_xml_does_not_name() -> None:
    sources = (ROOT / "test").rglob("*.py")
    needed = {name for path in sources for name in imported(path)}
    ros = {name for name in needed if re.search(r"_(msgs|srvs|interfaces)$", name)}
    assert {"lifecycle_msgs", "sensor_msgs"} <= ros
    assert ros - depends("exec_depend") - depends("test_depend") == set()


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_an_optional_module_comes_with_its_extra(module: str) -> None:
    distribution, extra = EXTRAS[module]
    brought = [
        re.split(r"[<>=!~ ]", requirement)[0]
        for requirement in described_by_setup()["extras_require"][extra]
    ]
    assert distribution in brought


def test_the_tests_track_with_what_setup_py_allows() -> None:
    """The Makefile installs it without dependencies, so the bounds stand there, too."""
    (tracking,) = described_by_setup()["extras_require"]["tracking"]
    assert f"--no-deps '{tracking}' 'supervision>=" in (ROOT / "Makefile").read_text("utf-8")


def test_package_xml_is_the_one_source_of_the_version() -> None:
    stated = MANIFEST.findtext("version")
    assert stated is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+", stated)
    assert described_by_setup()["version"] == stated
    assert dense_perception.__version__ == stated
    literal = re.compile(rf"""version\s*=\s*["']{re.escape(stated)}""", re.IGNORECASE)
    sources = [ROOT / "setup.py", *PACKAGE.rglob("*.py")]
    assert [path for path in sources if literal.search(path.read_text(encoding="utf-8"))] == []


def test_the_changelog_has_the_released_version() -> None:
    lines = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
    titles = [line for line, below in pairwise(lines) if set(below) == {"-"}]
    stated = MANIFEST.findtext("version")
    released = [title for title in titles if title != "Forthcoming"]
    assert re.fullmatch(rf"{stated} \(\d{{4}}-\d\d-\d\d\)", released[0])
    assert titles == ["Forthcoming", *released] or titles == released


def test_an_installed_package_says_its_version_without_package_xml(tmp_path: Path) -> None:
    """The package's folder alone, as in site-packages: the installation's metadata counts."""
    (tmp_path / "dense_perception").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "dense_perception")
    code = "import dense_perception; print(dense_perception.__file__, dense_perception.__version__)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    file, stated = output.split()
    assert Path(file).parents[1] == tmp_path
    assert stated == version("dense_perception")


def tracked(*folders: str) -> list[str]:
    """Files that git knows below some folders; all files where there is no git."""
    command = ["git", "ls-files", *folders]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if listed.returncode == 0:
        return listed.stdout.split()
    return [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]


def test_every_file_that_nodes_and_launch_files_need_is_installed() -> None:
    installed = {path for _, paths in described_by_setup()["data_files"] for path in paths}
    assert set(tracked("launch", "config", "models", "resource")) - installed == set()


def test_every_room_and_its_files_are_installed() -> None:
    described = described_by_setup()
    packages = {name.replace(".", "/") for name in described["packages"]}
    for path in tracked("dense_perception"):
        folder = str(Path(path).parent)
        if path.endswith(".py"):
            assert folder in packages, f"{path} is not installed: no __init__.py beside it?"
        else:
            globs = described["package_data"]["dense_perception"]
            inside = Path(path).relative_to("dense_perception")
            assert any(inside.match(glob) for glob in globs), f"{path} is not installed"


def test_colcon_finds_tests_to_run() -> None:
    """`colcon test` runs pytest only where the package's description asks for it."""
    from colcon_core.task.python.test import has_test_dependency

    assert has_test_dependency(described_by_setup(), "pytest")


BUILT_FOR_NUMPY_1 = """
import sys
sys.stderr.write("A module that was compiled using NumPy 1.x cannot be run in\\nNumPy 2.4.6\\n")
raise ImportError("numpy.core.multiarray failed to import")
"""  # what Debian 12's OpenCV 4.6 does under NumPy 2


@pytest.mark.parametrize(
    "command",
    [
        "from dense_perception.ros.depth_node import main; sys.exit(main([]))",
        "from dense_perception.ros.segmentation_node import main; sys.exit(main([]))",
        "from dense_perception.ros.multitask_node import main; sys.exit(main([]))",
        "from dense_perception.cli import main; sys.exit(main('run m --input i --output o'.split()))",  # noqa: E501
    ],
    ids=["depth", "segmentation", "multitask", "command"],
)
def test_an_opencv_for_another_numpy_is_one_line_with_the_cure(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "cv2.py").write_text(BUILT_FOR_NUMPY_1)
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; {command}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    *before, last = ended.stderr.splitlines()
    assert ended.returncode in (1, 2)
    assert "OpenCV was built for NumPy 1" in last
    assert "pip install 'numpy<2'" in last
    assert "Traceback" not in ended.stderr
    if "_node" in command:  # NumPy's own explanation, which names no cure for ROS, is not repeated
        assert before == []
