"""From a card and a file with weights to a network in evaluation mode, ready to export or run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError
from dense_perception.core.registry import checkpoint_path
from dense_perception.core.storage import file_sha256
from dense_perception.nets import zoo
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.weights import LoadReport, load_weights


def of_size(card: ModelCard, width: int, height: int) -> ModelCard:
    """The card of one fixed size, for runtimes that take no free one, or another camera.

    Pictures are stretched to it, positions are resized, a window slides within the graph. Its cost
    counts the parameters alone, and its name carries the size: each size is a model of its own.
    """
    network = dict(card.network)
    if card.segmentation is None or not card.segmentation.window:
        network |= {k: v for k, v in (("height", height), ("width", width)) if k in network}
    return replace(
        card,
        name=f"{card.name}_{width}x{height}",
        input=replace(
            card.input,
            height=height,
            width=width,
            resize="stretch",
            multiple=1,
            short_side=0,
            long_side=0,
        ),
        segmentation=card.segmentation and replace(card.segmentation, scores=0),
        network=network,
        cost={key: value for key, value in card.cost.items() if key == "parameters"},
    )


def published_network(
    card: ModelCard, checkpoint: Path | None = None
) -> tuple[nn.Module, ModelCard, LoadReport]:
    """The network with its published weights, the card with their hash, and what was loaded.

    :param checkpoint: by default where ``fetch`` puts it, which must be the published file. A file
        that is named may be another: one fine-tuned from it. The card then says so, and neither
        its results nor its source are the published ones.
    :raises ArtefactError: if the checkpoint is missing, is not the card's or does not fit.
    :raises CardError: if the card's network cannot be built.
    """
    path = checkpoint or checkpoint_path(card)
    if path is None or not path.is_file():
        what = f"there is no checkpoint {path}" if checkpoint else "they are not on this machine"
        raise ArtefactError(
            f"cannot load the weights of {card.name}: {what}; run `dense-perception fetch "
            f"{card.name}` first, or name the file with --weights"
        )
    digest = file_sha256(path)
    published = card.source is not None and digest.startswith(card.source.sha256)
    if card.source is not None and not published and checkpoint is None:
        raise ArtefactError(
            f"{path} has SHA-256 {digest[:12]}..., the card of {card.name} wants "
            f"{card.source.sha256[:12]}...: fetch it again, or name a file of your own with "
            "--weights"
        )
    network = zoo.build(card.network).eval()
    report = load_weights(network, path)
    provenance = {**card.provenance, "checkpoint_sha256": digest}
    if checkpoint is not None:
        provenance["checkpoint_file"] = path.name
    if not published:
        provenance["fine_tuned_from"] = card.name
        card = replace(card, source=None, results={})
    return network, replace(card, provenance=provenance), report


def trained_network(path: Path, card_path: Path | None = None) -> tuple[nn.Module, ModelCard]:
    """The network and the card of a ``model.pt`` that ``dense-perception train`` wrote.

    ``card_path``, a YAML file, replaces the card inside.

    :raises ArtefactError: if the file is missing, damaged, holds more than tensors and plain data,
        or its weights do not fit the card's network.
    :raises CardError: if there is no card or it is malformed.
    """
    checkpoint = read_checkpoint(path)
    card = ModelCard.from_yaml(card_path) if card_path is not None else checkpoint.card()
    network = zoo.build(card.network)
    load_weights(network, checkpoint)
    return network.eval(), card
