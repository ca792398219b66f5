"""Torch-TensorRT: an exported program with TensorRT engines inside, run by PyTorch on a GPU.

The one backend that needs PyTorch, which is not imported before this backend is opened. It builds
nothing: ``dense-perception compile NAME --backend torch_tensorrt`` puts the program in the cache.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from dense_perception.backends.base import Backend, batch_size, promised
from dense_perception.backends.device import find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    Engine,
    EngineKey,
    compile_command,
    find_engine,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import (
    ArtefactError,
    BackendError,
    DensePerceptionError,
    UnavailableError,
)
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model

RUNTIME = "torch_tensorrt"


def load_modules() -> tuple[Any, Any]:
    """The packages ``torch`` and ``torch_tensorrt``, imported now.

    :raises UnavailableError: if one is missing or does not load.
    """
    for package in ("torch_tensorrt", "torch"):
        if find_spec(package) is None:
            raise UnavailableError(
                f"the backend 'torch_tensorrt' needs the package {package}, which is not "
                "installed: pip install torch torch_tensorrt, or choose another backend"
            )
    try:
        import torch
        import torch_tensorrt
    except Exception as error:  # a broken or unfitting installation fails in many ways
        raise UnavailableError(
            f"torch_tensorrt does not load ({type(error).__name__}: {error}): install the version "
            "made for your torch and CUDA, or choose another backend"
        ) from error
    return torch, torch_tensorrt


def program_key(file: OnnxFile, version: str, device: str, precision: str) -> EngineKey:
    """The key of the program made from an ONNX file, for one image at a time."""
    return EngineKey(file.sha256, RUNTIME, version, device, precision, "batch 1")


def versions(torch: Any, torch_tensorrt: Any) -> str:
    """Both versions: a program may only run in those it was compiled with."""
    return f"{torch_tensorrt.__version__}, torch {torch.__version__}"


def stored_program(key: EngineKey, model: str, device: str = "gpu") -> Engine:
    """The program for exactly ``key`` from our own cache, whole and from our own hand.

    ``model`` and ``device`` are what a user calls them.

    :raises BackendError: if there is none, it is damaged, was built for something else, or others
        may write to the cache (:func:`~dense_perception.core.storage.open_own`).
    """
    found = find_engine(key)
    if isinstance(found, str):
        raise BackendError(
            f"there is no Torch-TensorRT program of {model} for {key.device}: {found}; run "
            f"{compile_command(model, RUNTIME, key.precision, device=device)}"
        )
    return found


class ExportedProgramBackend(Backend):
    """Runs a program of the cache on a device of PyTorch, one image after the other.

    :raises BackendError: if PyTorch does not load the program.
    """

    name = RUNTIME

    def __init__(self, engine: Engine, card: ModelCard, place: str, description: str) -> None:
        import torch

        self._torch = torch
        self._place = place
        self.identity = engine.identity
        self.description = description
        self.inputs, self.outputs = promised(card)
        try:
            # torch.export.load may unpickle, which runs what a file says. So these are the very
            # bytes whose SHA-256 and key stored_program has checked, from a folder (made with mode
            # 0700) that nobody else can write; a path from elsewhere is never loaded.
            self._module: Any = torch.export.load(io.BytesIO(engine.payload)).module()
        except Exception as error:  # PyTorch's failures have no common base
            raise BackendError(
                f"PyTorch {torch.__version__} does not load {engine.key.path}: {error}; delete "
                "the file and compile again"
            ) from error

    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        if self._module is None:
            raise self.closed()
        parts = [self._one(feeds, index, names) for index in range(batch_size(feeds))]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _one(
        self, feeds: Mapping[str, np.ndarray], index: int, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        torch = self._torch
        images = [feeds[spec.name][index : index + 1] for spec in self.inputs]
        try:
            with torch.no_grad():
                tensors = [torch.tensor(array, device=self._place) for array in images]
                answer = self._module(*tensors)
                answers = answer if isinstance(answer, list | tuple) else [answer]
                return {
                    spec.name: tensor.cpu().numpy()
                    for spec, tensor in zip(self.outputs, answers, strict=True)
                    if spec.name in names
                }
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"torch_tensorrt failed on this input: {error}") from error

    def close(self) -> None:
        self._module = None


def _word(file: OnnxFile, card: ModelCard) -> str:
    """What a user types for the model that the file is of, else the file's path.

    Only a model, by its name or its card, has the weights of its other precisions.
    """
    for known in (card.name, file.path.parent / f"{card.name}.yaml"):
        with contextlib.suppress(DensePerceptionError):
            model = find_model(known)
            described = model.card.files.get(card.precision)
            if described is not None and described.sha256 == file.sha256:
                return model.word
    return str(file.path)


class TorchTensorRtBackend(ExportedProgramBackend):
    """The compiled program of an ONNX file on an NVIDIA GPU; ``threads`` is ignored.

    :raises BackendError: if a package, the driver, the GPU or the compiled program is missing.
    """

    def __init__(self, file: OnnxFile, *, device: str = "gpu", threads: int = 0) -> None:
        index, _ = parse_device(device, RUNTIME)
        torch, torch_tensorrt = load_modules()
        gpu = find_gpu(index)
        try:
            card = ModelCard.from_onnx(file)
        except ArtefactError as error:
            raise BackendError(str(error)) from error
        version = versions(torch, torch_tensorrt)
        key = program_key(file, version, str(gpu), card.precision)
        engine = stored_program(key, _word(file, card), device)
        described = f"torch_tensorrt {version}, {gpu.name}, {engine.reason}"
        with torch.cuda.device(index):
            super().__init__(engine, card, f"cuda:{index}", described)
