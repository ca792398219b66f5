"""TensorRT inside ONNX Runtime: its execution provider, with the engine in our own cache.

For machines with TensorRT's libraries and without its Python module, which the ``tensorrt`` backend
needs. The provider writes the built engine into an ONNX file (an "EP context"), which is what the
cache keeps and checks; the provider's own cache, which checks nothing, is not used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.backends.base import one_line, run_in_parts, stated_precision
from dense_perception.backends.device import Gpu, find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    EngineMissingError,
    compile_command,
    engines_dir,
    find_engine,
    not_loaded,
    obtain_engine_once,
    why_not_storable,
)
from dense_perception.backends.nvidia.build import TensorRtOptions
from dense_perception.backends.onnxruntime import (
    OnnxRuntimeBackend,
    import_onnxruntime,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, UnavailableError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import scratch_folder

PROVIDER = "TensorrtExecutionProvider"
_NAME = "onnxruntime_tensorrt"
_LEAST_ROOM = 4096  # bytes
_log = logging.getLogger(__name__)
# What ONNX Runtime was built for: 1.19 and later name TensorRT 10.
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")


class OnnxRuntimeTensorRtBackend(OnnxRuntimeBackend):
    """Runs the engine that ONNX Runtime's TensorRT provider built; see :class:`OnnxRuntimeBackend`.

    An engine takes 1 to ``batch`` images, of one size; a larger batch is run in parts. Where none
    is stored that loads, it is built now if ``build`` allows it; what could not be built once is
    not tried another time until :func:`~dense_perception.backends.engine_cache.forget_failure`.

    :raises UnavailableError: if the provider, TensorRT, the driver or the GPU is missing.
    :raises EngineMissingError: if no stored engine loads and ``build`` is not set.
    :raises BackendError: if ``batch`` is out of range, or the graph or the engine is refused.
    """

    name = _NAME
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
        index, _ = parse_device(device, _NAME)
        key = provider_key(file, find_gpu(index), batch)
        card = ModelCard.from_onnx(file)
        if card.input.free:
            raise BackendError(
                f"{_NAME} builds an engine for one size, {card.name} takes every size: export it "
                "with --size WxH"
            )
        self._largest = batch
        self._payload: bytes = b""
        found = find_engine(key)
        refusal = found if isinstance(found, str) else self._load(found, file, index, threads)
        if isinstance(found, str) or refusal:
            if not build:
                raise EngineMissingError(key, refusal, batch)
            if isinstance(found, Engine):
                _log.warning("%s: it is deleted", refusal)
                with contextlib.suppress(OSError):
                    key.path.unlink(missing_ok=True)  # whole, yet refused: build it again
            retry = compile_command(str(file.path), _NAME, card.precision, batch, device)
            found = obtain_engine_once(
                key, lambda: self._build(file, card, index, batch), retry=retry
            )
            if refusal := self._load(found, file, index, threads):
                raise not_loaded(key, refusal, retry)
        self.identity, self.unstored = found.identity, found.problem

    def _load(self, engine: Engine, file: OnnxFile, index: int, threads: int) -> str:
        """Make it the one that runs; returns why it does not load.

        :raises UnavailableError: if the provider does not start, whatever the engine.
        """
        self._payload = engine.payload
        try:
            super().__init__(file, device=f"tensorrt:{index}", threads=threads)
        except UnavailableError:
            raise
        except BackendError as error:
            cause = one_line(error.__cause__ or error)
            return f"{_NAME} {engine.key.version} does not load {engine.key.path.name}: {cause}"
        finally:
            self._payload = b""
        return ""

    @classmethod
    def engine_key(cls, file: OnnxFile, device: str, batch: int = 1) -> EngineKey | None:
        """See :meth:`Backend.engine_key`."""
        return provider_key(file, find_gpu(parse_device(device, _NAME)[0]), batch)

    def _source(self, file: OnnxFile) -> Any:
        return self._payload or super()._source(file)

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        return run_in_parts(super()._run, feeds, names, self._largest)

    def _build(self, file: OnnxFile, card: ModelCard, index: int, batch: int) -> bytes:
        """The file in which the provider puts its engine."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Beside the engines if that can be written, as they may be larger than what is in memory.
        place, prefix = engines_dir(), "building_"
        if why_not_storable():
            place, prefix = Path(tempfile.gettempdir()), "dense_perception_building_"
        with scratch_folder(place, prefix) as folder:
            context = folder / "context.onnx"
            settings = provider_options(card, index, batch, context)
            try:
                self._open(file, options, PROVIDER, settings)
                file.verify()
                built = context.read_bytes()
            except (BackendError, OSError) as error:
                _require_room(folder, error)
                if isinstance(error, BackendError):
                    raise
                raise BackendError(
                    f"{_NAME} {ort.__version__} did not put all of {file.path} into one engine"
                ) from error
            _require_room(folder)
            return built


def _require_room(folder: Path, cause: Exception | None = None) -> None:
    """The provider does not say that its file was cut off.

    :raises UnavailableError: if the disk is full by now.
    """
    if shutil.disk_usage(folder).free < _LEAST_ROOM:
        raise UnavailableError(
            f"the disk of {folder} is full, so the engine is not whole: free space there"
        ) from cause


def provider_options(card: ModelCard, index: int, batch: int, context: Path) -> dict[str, str]:
    """How to build: only what the card names is allowed beside fp32."""
    sides = f"{card.input.height}x{card.input.width}x3"
    settings = {
        "device_id": str(index),
        "trt_fp16_enable": str(int(card.precision in ("fp16", "int8"))),
        "trt_int8_enable": str(int(card.precision == "int8")),
        "trt_dump_ep_context_model": "1",
        "trt_ep_context_embed_mode": "1",
        "trt_ep_context_file_path": str(context),
    }
    for which, images in (("min", 1), ("opt", 1), ("max", batch)):
        shapes = [f"image:{images}x{sides}"]
        shapes += [f"focal_px:{images}"] if card.input.focal else []
        settings[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    return settings


def provider_key(file: OnnxFile, gpu: Gpu, batch: int) -> EngineKey:
    """What an engine of the provider depends on.

    :raises UnavailableError: if TensorRT's library is not found.
    :raises BackendError: if ``batch`` is out of range.
    """
    version = library_version()
    if not version:
        raise UnavailableError(
            f"the backend {_NAME!r} needs TensorRT's libraries ({' or '.join(_LIBRARIES)}), which "
            "the system does not find: install TensorRT, or choose another backend"
        )
    ort = import_onnxruntime()
    return EngineKey(
        graph=file.sha256,
        runtime=_NAME,
        version=f"{ort.__version__}, TensorRT {version}",
        device=str(gpu),
        precision=stated_precision(file),
        profile=TensorRtOptions(max_batch=batch).profile,
    )


@functools.cache
def library_version() -> int:
    """TensorRT's own number, such as 101300; 0 where its library is not found."""
    for name in _LIBRARIES:
        try:
            return int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return 0


def is_installed() -> bool:
    """Whether this ONNX Runtime has the provider, and the system TensorRT."""
    try:
        there = import_onnxruntime().get_available_providers()
        return PROVIDER in there and bool(library_version())
    except BackendError:
        return False
