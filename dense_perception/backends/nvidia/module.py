"""Finds TensorRT, or TensorRT for RTX, wherever it was installed.

Wheels put ``tensorrt`` or ``tensorrt_rtx`` in the environment. JetPack puts ``tensorrt`` in the
system's dist-packages, which a virtual environment does not see: it is loaded from there.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from dense_perception.core.errors import UnavailableError

STANDARD, RTX = "tensorrt", "tensorrt_rtx"
RUNTIMES = (STANDARD, RTX)
"""The two products, in the order in which they are looked for."""

# The bindings' wheel alone (without the metapackage) has another module name.
_MODULES = {
    STANDARD: ("tensorrt", "tensorrt_bindings"),
    RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SYSTEM_FOLDERS = (
    Path(f"/usr/lib/python{_PYTHON}/dist-packages"),
    Path("/usr/lib/python3/dist-packages"),
    Path(f"/usr/local/lib/python{_PYTHON}/dist-packages"),
)
CURE = (
    "install TensorRT (JetPack has it; on a desktop: pip install tensorrt, or "
    "'dense_perception[tensorrt_rtx]' for TensorRT for RTX)"
)


@contextmanager
def garbage_waits() -> Iterator[None]:
    """No garbage collection while TensorRT may call back.

    It logs into Python with a lock held. A collection that begins there and frees an older builder
    wants the same lock, and both wait for ever.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def installed_runtimes(folders: Iterable[Path] = SYSTEM_FOLDERS) -> tuple[str, ...]:
    """Which of :data:`RUNTIMES` can be imported here; nothing is imported."""
    return tuple(name for name in RUNTIMES if _module_name(name) or _system(name, folders))


def load_runtime(
    name: str | None = None, folders: Iterable[Path] = SYSTEM_FOLDERS
) -> tuple[str, Any]:
    """The name and the module of ``name``, or of the first runtime there is.

    :raises UnavailableError: if it is not installed or cannot be loaded.
    """
    folders = tuple(folders)
    there = installed_runtimes(folders)
    wanted = name or (there[0] if there else STANDARD)
    if wanted not in there:
        raise UnavailableError(f"{wanted} is not installed here: {CURE}")
    try:
        module = _module_name(wanted)
        return wanted, import_module(module) if module else _load_system(wanted, folders)
    except (ImportError, OSError) as error:
        raise UnavailableError(
            f"{wanted} is installed but does not load ({error}): {CURE}"
        ) from error


class TensorRt(Protocol):
    """As much of the module as tells versions apart."""

    __version__: str


def major(trt: TensorRt) -> int:
    """The major version, such as 8, 10 or 11."""
    return int(str(trt.__version__).split(".")[0])


def _module_name(name: str) -> str | None:
    for module in _MODULES[name]:
        if module in sys.modules or find_spec(module) is not None:
            return module
    return None


def _system(name: str, folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        path = folder / name / "__init__.py"
        if path.is_file():
            return path
    return None


def _load_system(name: str, folders: Iterable[Path]) -> ModuleType:
    """That one package, without putting the rest of the system's packages on the path."""
    path = _system(name, folders)
    spec = spec_from_file_location(
        name, path, submodule_search_locations=[str(path and path.parent)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
