"""The files of a run folder: the model that is delivered and the state to go on from.

``model.pt`` is the delivery: ``{"model": averaged weights, "card": dict, "training": dict}``.
``best.pt`` is the same of the best validation so far, where one is to be kept.
``state.pt`` adds what :func:`dense_perception.training.loop.fit` needs to resume. All are written
to a temporary file first and load with ``weights_only=True``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dense_perception.core.errors import ArtefactError, TrainingError
from dense_perception.core.storage import atomic_write
from dense_perception.nets.checkpoint import Checkpoint, read_checkpoint
from dense_perception.nets.weights import load_weights

MODEL_FILE = "model.pt"
BEST_FILE = "best.pt"
STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"


def save(path: Path, content: Mapping[str, object]) -> None:
    """Write so that ``path`` holds the old or the new content whole, whatever happens.

    :raises TrainingError: if it cannot be written.
    """
    try:
        with atomic_write(path, durable=True) as stream:
            torch.save(content, stream)
    except (OSError, RuntimeError) as error:  # PyTorch's writer has no other kind for a full disk
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(
            f"cannot write {path}: {why}; free some space; `train --resume` goes on from the last "
            "checkpoint"
        ) from error


def read(path: Path, expected: tuple[str, ...] = ("model", "card", "training")) -> Checkpoint:
    """Read one of the two files without executing anything from it.

    :raises TrainingError: if it is missing, cut short, holds more than tensors and plain data, or
        lacks one of the ``expected`` entries.
    """
    try:
        checkpoint = read_checkpoint(path)
    except ArtefactError as error:
        raise TrainingError(
            f"{error}; expected a file written by `dense-perception train`"
        ) from error
    missing = [key for key in expected if key not in checkpoint.content]
    if missing:
        raise TrainingError(
            f"{path} lacks {missing}: expected a file written by `dense-perception train`"
        )
    return checkpoint


def fill(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the weights of ``checkpoint`` into the network of the configuration.

    :raises TrainingError: if they are another network's.
    """
    try:
        load_weights(module, checkpoint)
    except ArtefactError as error:
        raise TrainingError(str(error)) from error
