"""Checkpoints: what is kept to deliver a model and to go on with a run, as plain tensors and data.

``model.pt`` is the delivery: ``{"model": averaged weights, "card": dict, "training": dict}``.
``state.pt`` adds what :func:`dense_perception.training.loop.fit` needs to resume. Both are written
to a temporary file first and load with ``weights_only=True``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dense_perception.core.errors import ArtefactError, TrainingError
from dense_perception.core.storage import atomic_write
from dense_perception.nets.checkpoint_file import read_plain

MODEL_FILE = "model.pt"
STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"


def save(path: Path, content: dict[str, Any]) -> None:
    """Write so that ``path`` holds the old or the new content whole, whatever happens."""
    with atomic_write(path, durable=True) as stream:
        torch.save(content, stream)


def load(path: Path, expected: tuple[str, ...] = ("model", "card", "training")) -> dict[str, Any]:
    """Read without executing anything from the file.

    :raises TrainingError: if it is missing, cut short, holds more than tensors and plain data, or
        lacks one of the ``expected`` entries.
    """
    try:
        content = read_plain(path)
    except ArtefactError as error:
        raise TrainingError(
            f"{error}; expected a file written by `dense-perception train`"
        ) from error
    missing = [key for key in expected if not isinstance(content, dict) or key not in content]
    if missing:
        raise TrainingError(
            f"{path} lacks {missing}: expected a file written by `dense-perception train`"
        )
    return content


def load_weights(module: torch.nn.Module, weights: dict[str, Any], where: str) -> None:
    """Put ``weights`` into ``module``; every entry must be there and fit.

    :raises TrainingError: if the network of ``where`` is another one.
    """
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"the weights of {where} do not fit the configured network: {error}"
        ) from error


def load_shared(module: torch.nn.Module, weights: dict[str, Any], where: str) -> list[str]:
    """Put those top-level parts of another network into ``module`` that fit whole; their names.

    :raises TrainingError: if no part fits.
    """
    taken = []
    for name, part in module.named_children():
        prefix = f"{name}."
        theirs = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        own = part.state_dict()
        if theirs.keys() == own.keys() and all(theirs[k].shape == own[k].shape for k in own):
            part.load_state_dict(theirs)
            taken.append(name)
    if not taken:
        raise TrainingError(
            f"{where} is of another network and no part of it fits: expected one with the same "
            f"{' or '.join(name for name, _ in module.named_children())}"
        )
    return taken
