"""The import rules of docs/architecture.md, read from the sources with ``ast``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dense_perception"
ROOT = PACKAGE.parent

# Which rooms (or single modules) each room may import besides itself.
ALLOWED = {
    "core": set(),
    "imaging": {"core"},
    "backends": {"core"},
    "runtime": {"core", "imaging", "backends"},
    "ros": {"core", "imaging", "backends", "runtime"},
    "nets": {"core"},
    "hub": {"core"},
    "training": {"core", "imaging", "nets", "evaluation.metrics", "evaluation.dense_metrics"},
    "export": {"core", "imaging", "backends", "runtime", "nets", "training.artefact"},
    "evaluation": {"core", "imaging", "backends", "runtime", "nets", "export.published"},
}
# Heavy packages and the only rooms that may name them, at module level or inside a function.
ONLY_IN = {
    "rclpy": {"ros"},
    # In backends only torch_tensorrt, late: see the test below.
    "torch": {"nets", "training", "export", "evaluation", "backends"},
    "torch_tensorrt": {"backends", "export"},
    "onnxruntime": {"backends", "export"},
    "openvino": {"backends", "export"},
    "tensorrt": {"backends"},
    "tensorrt_rtx": {"backends"},
    "mujoco": {"training"},
    "transformers": {"evaluation"},
}
# What each room may need at import time; everything else must be imported late.
NEEDED = {
    "core": {"numpy", "yaml"},
    "imaging": {"numpy", "yaml", "cv2"},
    "backends": {"numpy", "yaml"},
    "runtime": {"numpy", "yaml", "cv2", "tqdm"},
    "evaluation": {"numpy", "yaml", "cv2", "tqdm"},
}
OPTIONAL = {
    "cv2", "tqdm", "torch", "onnx", "onnxruntime", "openvino", "rclpy", "rosbags", "transformers",
    "mujoco", "trimesh", "PIL", "vizdoom", "numba", "onnxscript", "fast_simplification",
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Every absolute module name that ``path`` imports, ``from a import b`` as ``a.b``."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if at_import_time and (late or typing_only):
            skipped.update(ast.walk(node))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room, use absolute ones"
            assert node.module is not None
            for alias in node.names:
                assert alias.name != "*", f"{path}: star import"
                yield f"{node.module}.{alias.name}"


def test_the_source_tree_is_found() -> None:
    assert len(sources()) > 15


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_their_neighbours(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        top = name.split(".")[0]
        if top in ONLY_IN:
            assert room in ONLY_IN[top], f"{path}: only {ONLY_IN[top]} may import {top}"
        if top != "dense_perception" or room not in ALLOWED:
            continue  # entry points (cli, the package itself) may import any room
        target = name.removeprefix("dense_perception.")
        neighbours = {room, *ALLOWED[room]}
        assert target.startswith("__version__") or any(
            target == n or target.startswith(n + ".") for n in neighbours
        ), f"{path}: {room} imports {name}, allowed are {sorted(neighbours)}"


def test_one_backend_alone_names_torch_and_only_inside_functions() -> None:
    for path in sorted((PACKAGE / "backends").glob("*.py")):
        late = [name for name in imports(path) if name.split(".")[0] in ("torch", "torch_tensorrt")]
        early = [
            name
            for name in imports(path, at_import_time=True)
            if name.split(".")[0] in ("torch", "torch_tensorrt")
        ]
        assert not early, path
        assert bool(late) is (path.stem == "torch_tensorrt"), path


def test_only_entry_points_import_the_cli() -> None:
    importers = [p for p in sources() for n in imports(p) if n.startswith("dense_perception.cli")]
    assert not [p for p in importers if p.name not in {"__main__.py", "cli.py"}]


def test_there_is_no_grab_bag() -> None:
    assert not [p for p in sources() if p.stem in {"utils", "util", "helpers", "misc", "common"}]


def modules_of(room: str) -> list[str]:
    return [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in sorted((PACKAGE / room).rglob("*.py"))
    ]


@pytest.mark.parametrize("room", sorted(NEEDED))
def test_a_room_imports_without_the_optional_packages(room: str) -> None:
    """In a fresh process in which every package the room does not need refuses to import."""
    blocked = sorted(OPTIONAL - NEEDED[room])
    program = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked in this test")
sys.meta_path.insert(0, Refuse())
for module in {modules_of(room)!r}:
    importlib.import_module(module)
loaded = {blocked!r} and [n for n in {blocked!r} if n in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
