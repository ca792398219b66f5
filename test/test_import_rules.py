"""The import rules of docs/architecture.md, read from the sources with ``ast``."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dense_perception"
ROOT = PACKAGE.parent

# Which rooms each room may import: those below it, each named, so that a new tie is a choice.
ALLOWED = {
    "core": set(),
    "metrics": {"core"},
    "imaging": {"core"},
    "nets": {"core"},
    "backends": {"core"},
    "hub": {"core"},
    "media": {"core", "imaging"},
    "runtime": {"core", "imaging", "backends", "media"},
    "data": {"core", "imaging", "media", "metrics"},
    "export": {"core", "imaging", "nets", "backends", "media", "runtime", "data"},
    "ros": {"core", "imaging", "backends", "media", "runtime"},
    "synthetic": {"core", "imaging", "media", "data"},
    "training": {"core", "metrics", "imaging", "nets", "data"},
    "evaluation": {"core", "metrics", "imaging", "nets", "media", "runtime", "data"},
    "benchmarks": {
        "core", "metrics", "imaging", "nets", "backends", "media", "runtime", "data", "export",
        "ros", "evaluation",
    },
    "commands": {
        "core", "metrics", "imaging", "nets", "backends", "hub", "media", "runtime", "data",
        "export", "ros", "synthetic", "training", "evaluation", "benchmarks",
    },
}  # fmt: skip
# Heavy packages and the only places that may name them, at module level or inside a function.
ONLY_IN = {
    "rclpy": {"ros", "benchmarks"},
    "torch": {"nets", "training", "export", "backends.nvidia.torch"},
    "torch_tensorrt": {"export", "backends.nvidia.torch"},
    "onnxruntime": {"backends", "export"},
    "openvino": {"backends", "export"},
    "tensorrt": {"backends.nvidia"},
    "tensorrt_rtx": {"backends.nvidia"},
    "mujoco": {"synthetic"},
    "transformers": {"nets"},
    "lightning_fabric": {"training.engine"},
    "tensorboard": {"training.curves"},
    "matplotlib": {"evaluation.page.charts"},
    "jinja2": {"evaluation.page.write"},
    "ray": {"evaluation.workers"},
    "rerun": {"evaluation.record"},
    "faster_coco_eval": {"metrics.detection"},
    "trackers": {"runtime.tracking"},
    "supervision": {"runtime.tracking"},
}
# What each room may need at import time; everything else must be imported late.
NEEDED = {
    "core": {"numpy", "yaml"},
    "metrics": {"numpy", "cv2"},
    "imaging": {"numpy", "yaml", "cv2"},
    "backends": {"numpy", "yaml"},
    "hub": {"numpy", "yaml"},
    "media": {"numpy", "yaml", "cv2", "tqdm"},
    "runtime": {"numpy", "yaml", "cv2", "tqdm"},
    "evaluation": {"numpy", "yaml", "cv2", "tqdm"},
    "export/foreign": {"numpy", "yaml", "cv2", "tqdm", "onnx"},
}
OPTIONAL = {
    "cv2", "tqdm", "torch", "onnx", "onnxruntime", "openvino", "rclpy", "rosbags", "transformers",
    "mujoco", "trimesh", "PIL", "vizdoom", "numba", "onnxscript", "onnx_ir",
    "fast_simplification",
    "jinja2", "matplotlib", "ray", "rerun", "faster_coco_eval",
    "trackers", "supervision",
}  # fmt: skip


@functools.cache
def sources() -> tuple[Path, ...]:
    return tuple(sorted(PACKAGE.rglob("*.py")))


@functools.cache
def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name below the package."""
    return {place_of(path): path for path in sources()}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


@functools.cache
def imports(path: Path, *, at_import_time: bool = False) -> tuple[str, ...]:
    """Every absolute module name that ``path`` imports, ``from a import b`` as ``a.b``."""
    return tuple(_imports(path, at_import_time))


def _imports(path: Path, at_import_time: bool) -> Iterator[str]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree_of(path)):
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


def place_of(path: Path) -> str:
    """The module's dotted name below the package: ``core.card``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_below(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_what_is_below(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        top = name.split(".")[0]
        if top in ONLY_IN:
            assert is_below(place_of(path), ONLY_IN[top]), f"only {ONLY_IN[top]} may import {top}"
        if top != "dense_perception" or room not in ALLOWED:
            continue  # entry points (cli, the package itself) may import any room
        target = name.removeprefix("dense_perception.")
        assert target.startswith("__version__") or is_below(target, {room, *ALLOWED[room]}), (
            f"{path}: {room} imports {name}, allowed are {sorted(ALLOWED[room])}"
        )


def test_every_room_has_its_rule() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(ALLOWED)


def test_a_backend_names_torch_only_inside_functions() -> None:
    path = PACKAGE / "backends" / "nvidia" / "torch.py"
    late = {name.split(".")[0] for name in imports(path)}
    early = {name.split(".")[0] for name in imports(path, at_import_time=True)}
    assert "torch_tensorrt" in late
    assert not early & {"torch", "torch_tensorrt"}


def file_graph() -> dict[str, set[str]]:
    """Which module imports which, inside functions and for types alone included."""
    known = set(modules())
    graph: dict[str, set[str]] = {}
    for path in sources():
        targets = set()
        for name in imports(path):
            target = name.removeprefix("dense_perception.")
            if name.startswith("dense_perception."):
                targets.add(target if target in known else target.rpartition(".")[0])
        graph[place_of(path)] = (targets & known) - {place_of(path), ""}
    return graph


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_module_that_is_imported_is_there(path: Path) -> None:
    """Late imports too, which no test may reach and the type checker takes for foreign ones."""
    known = modules()
    for name in imports(path):
        target = name.removeprefix("dense_perception.")
        if target != name and target not in known:
            module, _, entry = target.rpartition(".")
            assert module in known or not module, f"{name} is not there"
            if module:
                assert entry in names_in(known[module]), f"{name} is not there"


@functools.cache
def names_in(path: Path) -> set[str]:
    """What a module defines or imports, anywhere at its top level or in a branch of it."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += graph.get(node, ())
        return seen

    reach = {node: reached(node) for node in graph}
    groups = {tuple(sorted(m for m in reach[n] if n in reach[m])) for n in graph if n in reach[n]}
    return [list(group) for group in sorted(groups)]


def test_the_search_for_circles_finds_one() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(file_graph()) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {room: set() for room in ALLOWED}
    for module, targets in file_graph().items():
        room = module.split(".")[0]
        if room in rooms:
            rooms[room] |= {target.split(".")[0] for target in targets} - {room}
    assert circles({room: targets & set(rooms) for room, targets in rooms.items()}) == []


def test_only_entry_points_import_the_cli() -> None:
    importers = [p for p in sources() for n in imports(p) if n.startswith("dense_perception.cli")]
    assert not [p for p in importers if p.name not in {"__main__.py", "cli.py"}]


def test_only_commands_read_options_with_argparse() -> None:
    """The other rooms are libraries: what they are told comes as arguments of functions."""
    readers = {place_of(path) for path in sources() for name in imports(path) if name == "argparse"}
    assert readers
    assert {place for place in readers if not is_below(place, {"commands", "cli"})} == set()


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
