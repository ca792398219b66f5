"""Averages the weights of two models of one lineage.

A model and what further training made of it lie in one valley of the loss: weights between them are
often better than both on pictures unlike the training's (WiSE-FT, Wortsman 2021, arXiv:2109.01903;
model soups, Wortsman 2022, arXiv:2203.05482). Two models trained apart from the start have nothing
between them: validate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import TrainingError
from dense_perception.nets.onnx_weights import load_artefact
from dense_perception.nets.zoo import build
from dense_perception.training import checkpoint
from dense_perception.training.config import TrainingConfig
from dense_perception.training.provenance import card_of


@dataclass(frozen=True)
class Soup:
    """Averaged weights, what they were trained with, and the record that the card is made of."""

    network: nn.Module
    config: TrainingConfig
    training: dict[str, Any]

    def save(self, path: Path, results: Mapping[str, Any]) -> None:
        """Write a ``model.pt``; ``results`` are the metrics of the validation, if any."""
        training = {**self.training, "results": dict(results)}
        card = card_of(self.config, training).to_dict()
        model = self.network.state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(path, {"model": model, "card": card, "training": training})


def cook(first: Path, second: Path, share: float) -> Soup:
    """``share`` of the weights of ``first`` and the rest of ``second``, evaluation mode.

    :param first: the model.pt of the later run.
    :param second: the model.pt or the exported fp32 ONNX file of the earlier one.
    :raises TrainingError: if a file cannot be read, the networks differ or ``share`` is not in
        [0, 1].
    """
    if not 0 <= share <= 1:
        raise TrainingError(f"the share of {first} is {share}, expected 0 to 1")
    content = checkpoint.load(first)
    training: dict[str, Any] = dict(content["training"])
    config = TrainingConfig.from_dict(training.get("config"), f"the configuration in {first}")
    network, other = build(config.network), build(config.network)
    checkpoint.load_weights(network, content["model"], str(first))
    before = _load(other, second)
    theirs = other.state_dict()
    network.load_state_dict(
        {name: _mean(value, theirs[name], share) for name, value in network.state_dict().items()}
    )
    soup = {"share": share, "with": second.name, "with_share": round(1 - share, 6), **before}
    return Soup(network.eval(), config, {**training, "soup": soup, "results": {}})


def _load(network: nn.Module, path: Path) -> dict[str, Any]:
    """Weights of either kind of file; the command that made them, where it is known."""
    if path.suffix == ".onnx":
        made: Mapping[str, Any] = load_artefact(network, path).provenance
    else:
        content = checkpoint.load(path)
        checkpoint.load_weights(network, content["model"], str(path))
        made = ModelCard.from_dict(content["card"], f"the card in {path}").provenance
    return {"command": made["command"]} if "command" in made else {}


def _mean(first: Tensor, second: Tensor, share: float) -> Tensor:
    if not first.is_floating_point():
        return first  # counters
    return torch.lerp(second, first, share)
