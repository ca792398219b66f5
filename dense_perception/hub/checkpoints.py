"""Where fetched weights lie, and what their licence asks of the user."""

from __future__ import annotations

from pathlib import Path

from dense_perception.core.cache import cache_dir
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ModelNotFoundError


def checkpoint_path(card: ModelCard) -> Path:
    """Where ``fetch`` puts the weights of ``card``; not necessarily there.

    The model's name is a folder of its own: publishers reuse file names (``model.safetensors``).

    :raises ModelNotFoundError: if the card names no published weights.
    """
    if card.source is None:
        raise ModelNotFoundError(f"model {card.name} has no published weights: train or export it")
    return cache_dir() / "checkpoints" / card.name / card.source.file


def licence_notice(card: ModelCard) -> str:
    """What to say before the weights are used; empty where commercial use is allowed."""
    licence = card.licence.get("weights", "")
    if card.licence.get("commercial") is False:
        return (
            f"NOTE: the weights of {card.name} may not be used commercially (licence {licence}); "
            "models exported from them may not either."
        )
    if card.licence.get("commercial") is None:
        return (
            f"NOTE: the licence of the weights of {card.name} is not stated clearly "
            f"({licence or 'nothing found'}): ask their publisher before commercial use."
        )
    return ""
