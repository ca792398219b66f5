"""Fetched weights and the card that names them become a network ready to export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError
from dense_perception.core.registry import checkpoint_path
from dense_perception.core.storage import file_sha256
from dense_perception.nets import zoo
from dense_perception.nets.weights import LoadReport, load_checkpoint


def of_size(card: ModelCard, width: int, height: int) -> ModelCard:
    """The card for an input of another size: positions are resized, a window stays and slides.

    Its cost counts the parameters alone; the operations were those of the old size.
    """
    network = dict(card.network)
    if card.segmentation is None or not card.segmentation.window:
        network |= {k: v for k, v in (("height", height), ("width", width)) if k in network}
    return replace(
        card,
        input=replace(card.input, height=height, width=width),
        network=network,
        cost={key: value for key, value in card.cost.items() if key == "parameters"},
    )


def load_published(
    card: ModelCard, checkpoint: Path | None = None
) -> tuple[nn.Module, ModelCard, LoadReport]:
    """The network with its published weights, the card with their hash, and what was loaded.

    :param checkpoint: by default where ``fetch`` puts it.
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
    if card.source is not None and not digest.startswith(card.source.sha256):
        raise ArtefactError(
            f"{path} has SHA-256 {digest[:12]}..., the card of {card.name} wants "
            f"{card.source.sha256[:12]}...: fetch it again, or correct the card"
        )
    network = zoo.build(card.network).eval()
    report = load_checkpoint(network, path)
    provenance = {**card.provenance, "checkpoint_sha256": digest}
    return network, replace(card, provenance=provenance), report
