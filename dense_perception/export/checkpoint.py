"""Reads what training wrote, executing nothing."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.nets import zoo
from dense_perception.nets.checkpoint_file import read_plain


def load_checkpoint(path: Path, card_path: Path | None = None) -> tuple[nn.Module, ModelCard]:
    """The network and the card of ``{"model": state dictionary, "card": mapping, ...}``.

    ``card_path``, a YAML file, replaces the card inside.

    :raises ArtefactError: if the file is missing, damaged, holds more than tensors and plain data,
        or its weights do not fit the card's network.
    :raises CardError: if there is no card or it is malformed.
    """
    content = _read(Path(path))
    weights = content.get("model")
    if not isinstance(weights, dict):
        raise ArtefactError(
            f"{path} has no weights under 'model': expected a file of `dense-perception train`"
        )
    if card_path is not None:
        card = ModelCard.from_yaml(card_path)
    elif content.get("card") is None:
        raise CardError(f"{path} carries no card: give one with --card")
    else:
        card = ModelCard.from_dict(content["card"], f"the card inside {path}")
    network = zoo.build(card.network)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ArtefactError(
            f"the weights of {path} do not fit the network of card {card.name}: {error}"
        ) from error
    return network.eval(), card


def _read(path: Path) -> dict[str, object]:
    content = read_plain(path)
    if not isinstance(content, dict):
        raise ArtefactError(f"{path} holds a {type(content).__name__}, expected a dictionary")
    return content
