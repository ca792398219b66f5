"""What the licence of published weights asks of the user."""

from __future__ import annotations

from dense_perception.core.card import ModelCard


def licence_notice(card: ModelCard) -> str:
    """What to say before the weights are used; empty where commercial use is allowed."""
    licence = card.licence.get("weights", "")
    if card.licence.get("commercial") is True:
        return ""
    if card.licence.get("commercial") is False:
        return (
            f"NOTE: the weights of {card.name} may not be used commercially (licence {licence}); "
            "models exported from them may not either."
        )
    note = card.licence.get("note", "")
    return (
        f"NOTE: whether the weights of {card.name} may be used commercially is not clear "
        f"(licence {licence or 'not stated'}{'; ' + note if note else ''}): ask their publisher."
    )
