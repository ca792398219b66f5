"""TensorRT inside ONNX Runtime: its execution provider, with the engine in our own cache.

For machines with TensorRT's libraries and without its Python module, which the ``tensorrt`` backend
needs. The provider writes the built engine into an ONNX file (an "EP context"), which is what the
cache keeps and checks; the provider's own cache, which checks nothing, is not used.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dense_perception.backends.base import run_in_parts, stated_precision
from dense_perception.backends.device import Gpu, find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    EngineKey,
    compile_command,
    engines_dir,
    failed_build,
    obtain_engine,
    remember_failure,
    stored_keys,
)
from dense_perception.backends.nvidia.build import TensorRtOptions
from dense_perception.backends.onnxruntime import (
    OnnxRuntimeBackend,
    ProviderError,
    import_onnxruntime,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import make_own_folder

PROVIDER = "TensorrtExecutionProvider"
_NAME = "onnxruntime_tensorrt"
# What ONNX Runtime was built for: 1.19 and later name TensorRT 10.
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")


class OnnxRuntimeTensorRtBackend(OnnxRuntimeBackend):
    """Runs the engine that ONNX Runtime's TensorRT provider built; see :class:`OnnxRuntimeBackend`.

    An engine takes 1 to ``batch`` images, of one size; a larger batch is run in parts. What could
    not be built once is not tried another time until
    :func:`~dense_perception.backends.engine_cache.forget_failure`; a provider that does not start
    is no such failure.

    :raises BackendError: if the provider, TensorRT, the driver or the GPU is missing, ``batch`` is
        out of range, or the graph or the engine is refused.
    """

    name = _NAME
    takes_batch = True

    def __init__(
        self, file: OnnxFile, *, device: str = "gpu", threads: int = 0, batch: int = 1
    ) -> None:
        index, _ = parse_device(device, _NAME)
        key = provider_key(file, find_gpu(index), batch)
        card = ModelCard.from_onnx(file)
        if card.input.free:
            raise BackendError(
                f"{_NAME} builds an engine for one size, {card.name} takes every size: export it "
                "with --size WxH"
            )
        if reason := failed_build(key):
            command = compile_command(card.name, _NAME, card.precision, batch)
            raise BackendError(
                f"its engine could not be built before: {reason}; {command} tries it again"
            )
        self._largest = batch
        self._payload: bytes = b""
        try:
            engine = obtain_engine(key, lambda: self._build(file, card, index, batch))
        except ProviderError:
            raise
        except BackendError as error:
            remember_failure(key, str(error))
            raise
        self._payload = engine.payload
        super().__init__(file, device=f"tensorrt:{index}", threads=threads)
        self._payload = b""
        self.identity, self.unstored = engine.identity, engine.problem

    @classmethod
    def missing_engine(cls, file: OnnxFile, device: str, batch: int = 1) -> EngineKey | None:
        """See :meth:`Backend.missing_engine`."""
        key = provider_key(file, find_gpu(parse_device(device, _NAME)[0]), batch)
        if ModelCard.from_onnx(file).input.free or key in stored_keys(file.sha256, key.runtime):
            return None
        return key

    def _source(self, file: OnnxFile) -> Any:
        return self._payload or super()._source(file)

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        return run_in_parts(super()._run, feeds, names, self._largest)

    def _build(self, file: OnnxFile, card: ModelCard, index: int, batch: int) -> bytes:
        """The file in which the provider puts its engine."""
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        make_own_folder(engines_dir())
        with tempfile.TemporaryDirectory(dir=engines_dir(), prefix="building_") as folder:
            context = Path(folder, "context.onnx")
            settings = provider_options(card, index, batch, context)
            self._open(file, options, PROVIDER, settings)
            file.verify()
            try:
                return context.read_bytes()
            except OSError as error:
                raise BackendError(
                    f"{_NAME} {ort.__version__} did not put all of {file.path} into one engine"
                ) from error


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

    :raises BackendError: if TensorRT's library is not found, or ``batch`` is out of range.
    """
    version = library_version()
    if not version:
        raise BackendError(
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
