"""The network to export: a checkpoint of training, published weights or random ones."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.registry import exported_dir, find_card, list_models
from dense_perception.export.untrained import parse_size, untrained
from dense_perception.nets.networks import of_size, published_network, trained_network


def open_network(
    name: str,
    *,
    weights: Path | None = None,
    card_path: Path | None = None,
    random: bool = False,
    size: str | None = None,
    called: str | None = None,
) -> tuple[nn.Module, ModelCard, str]:
    """The network in evaluation mode, its card, and what there is to say about its weights.

    ``name`` is a model.pt, a published model with its checkpoint in the cache or in ``weights``,
    or, with ``random``, also a FAMILY/VARIANT. ``size``, e.g. ``686x518``, fixes the network's
    input. ``called`` is the model's new name.

    :raises InputError: if ``size`` or ``called`` is given for a model.pt, or ``size`` is no size.
    :raises ArtefactError, CardError: see :func:`~dense_perception.nets.networks.trained_network`.
    """
    published = weights is not None or name in list_models()
    if random:
        return (*untrained(name, size), "")
    if size is not None and name not in list_models():
        raise InputError("--size goes with NAME: a model.pt has its size in its card")
    if called is not None and name not in list_models():
        raise InputError("--name goes with NAME: a model.pt has its name in its card")
    if not published:
        return (*trained_network(Path(name), card_path), "")
    card = ModelCard.from_yaml(card_path) if card_path else find_card(name)
    if size is not None:
        card = of_size(card, *parse_size(size))
    network, card, report = published_network(card, weights)
    if called is not None:
        # Through the reader: it says what a name may be.
        card = ModelCard.from_dict({**card.to_dict(), "name": called}, f"--name {called}")
    return network, card, str(report)


def default_folder(name: str, *, weights: Path | None = None, random: bool = False) -> Path:
    """Where the model that :func:`open_network` opens is written: a published one, to where models
    are looked for.

    :raises InputError: if it is none; whoever exports their own names a folder.
    """
    if random:
        raise InputError("name a folder with --output: random weights are for measuring only")
    if weights is None and name not in list_models():
        raise InputError(f"name a folder for the model of {name} with --output")
    return exported_dir()
