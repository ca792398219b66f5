"""depth_node and ``compile`` on a machine whose GPU and TensorRT are pretended.

Its engines are ONNX Runtime's on the CPU, and DENSE_PERCEPTION_ENGINE says how they are built:
``SECONDS`` and ``good``, ``wrong`` (answers twice the depth), ``fails`` or ``starts-not`` (for want
of a library), as in ``4 good``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    EngineMissingError,
    find_engine,
    obtain_engine_once,
)
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.core.errors import BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.ros.processes import end_at_once_on_interrupt


class PretendedBackend(OnnxRuntimeBackend):
    """TensorRT as far as its engines go."""

    name = "tensorrt"
    has_engines = True

    def __init__(
        self,
        file: OnnxFile,
        *,
        device: str = "gpu",
        threads: int = 0,
        batch: int = 1,
        build: bool = True,
    ) -> None:
        engine = find_engine(_key(file))
        if isinstance(engine, str) and not build:
            raise EngineMissingError(_key(file), engine)
        if isinstance(engine, str):
            engine = obtain(file)
        super().__init__(file, device="cpu", threads=threads)
        self.is_reference = False
        self.identity = engine.identity
        self.description = "tensorrt, pretended"

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        factor = 2 if how() == "wrong" else 1
        return {name: array * factor for name, array in super()._run(feeds, names).items()}


def how() -> str:
    return os.environ["DENSE_PERCEPTION_ENGINE"].split()[1]


def _key(file: OnnxFile) -> EngineKey:
    return EngineKey(file.sha256, "tensorrt", "10.3", "Pretended", "fp32", "batch 1..1")


def obtain(file: OnnxFile, on_progress: object = None) -> Engine:
    return obtain_engine_once(
        _key(file), lambda: b"".join(build(file, on_progress)), retry="this", again=True
    )


def build(file: OnnxFile, on_progress: object = None) -> Iterator[bytes]:
    """Takes its time, or until a file says to go on; a generator, so that steps can be told."""
    cache = Path(os.environ["XDG_CACHE_HOME"])
    seconds = float(os.environ["DENSE_PERCEPTION_ENGINE"].split()[0])
    for step in range(10):
        end_s = time.monotonic() + seconds / 10
        while time.monotonic() < end_s and not (cache / "go").exists():
            time.sleep(min(0.05, seconds / 10))
        if callable(on_progress):
            on_progress("tactics", step + 1, 10)
    if how() == "fails":
        raise BackendError("tensorrt 10.3 cannot build it: no kernel for node 7")
    if how() == "starts-not":
        raise UnavailableError("tensorrt 10.3 cannot build here: libnvinfer is missing: install it")
    with contextlib.suppress(OSError), (cache / "built.txt").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    yield b"an engine"


def pretend() -> None:
    """Replace what asks for a GPU, here and wherever it was imported."""
    from dense_perception.backends import device, onnxruntime, opening

    opening.BACKENDS["tensorrt"] = (__name__, "PretendedBackend", "onnxruntime")
    opening.installed_runtimes = lambda: ("tensorrt",)  # type: ignore[assignment]
    device.find_gpu = lambda index=0: device.Gpu("Pretended", "8.9", "12.6")
    onnxruntime._PROVIDERS["gpu"] = "CPUExecutionProvider"


def compile_engine(arguments: Sequence[str]) -> int:
    """The real verb, with a builder that takes its time."""
    from dense_perception import cli
    from dense_perception.export import compile as compiling

    def tensorrt(
        file: OnnxFile, kind: str, capability: str, options: compiling.CompileOptions
    ) -> compiling.CompiledRow:
        with compiling.build_progress(in_lines=options.progress_in_lines) as tell:
            return compiling._row(kind, obtain(file, tell), 0.0, "at its first load")

    compiling._tensorrt = tensorrt
    return cli.main(list(arguments))


def main() -> int:
    pretend()
    if sys.argv[1:2] == ["compile"]:
        return compile_engine(sys.argv[1:])
    end_at_once_on_interrupt()

    from dense_perception.ros import depth_node, engine_building

    engine_building.COMPILER = __name__ if __name__ != "__main__" else "test.support.slow_engine"
    return depth_node.main()


if __name__ == "__main__":
    # The backend's module must be this one, not a second copy of it.
    sys.modules["test.support.slow_engine"] = sys.modules["__main__"]
    __name__ = "test.support.slow_engine"
    raise SystemExit(main())
