"""Checkpoints are data: read whole, or refused and never executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.nets.networks import trained_network
from test.export.conftest import VIT, random_network, vit_card

CARD = vit_card(VIT)


def write(path: Path, **changes: object) -> Path:
    content = {"model": random_network(CARD).state_dict(), "card": CARD.to_dict(), **changes}
    torch.save({k: v for k, v in content.items() if v is not None}, path)
    return path


def test_round_trip(tmp_path: Path) -> None:
    network, card = trained_network(write(tmp_path / "model.pt", training={"seed": 1}))
    assert card == CARD
    assert not network.training
    want = random_network(CARD).state_dict()
    assert all(torch.equal(value, want[key]) for key, value in network.state_dict().items())


class Malice:
    """A pickle that runs code when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return exec, (f"open({str(self.target)!r}, 'w').write('owned')",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_malicious_checkpoint_is_refused_and_not_executed(tmp_path: Path, how: str) -> None:
    target, path = tmp_path / "owned.txt", tmp_path / "model.pt"
    content = {"model": random_network(CARD).state_dict(), "card": Malice(target)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ArtefactError, match="nothing of it was executed"):
        trained_network(path)
    assert not target.exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_checkpoint(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "model.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtefactError, match="cannot read the checkpoint"):
        trained_network(path)


def test_wrong_contents_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(ArtefactError, match="there is no checkpoint"):
        trained_network(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ArtefactError, match="no named tensors"):
        trained_network(path)
    with pytest.raises(ArtefactError, match="no named tensors"):
        trained_network(write(path, model=None))
    with pytest.raises(CardError, match="carries no card, expected a file of train or export"):
        trained_network(write(path, card=None))
    with pytest.raises(CardError, match="schema"):
        trained_network(write(path, card={"name": "x"}))
    other = vit_card({**VIT, "features": 24})
    with pytest.raises(ArtefactError, match="does not fit DPT"):
        trained_network(write(path, card=other.to_dict()))


def test_card_from_a_file_wins(tmp_path: Path) -> None:
    import yaml

    card_path = tmp_path / "card.yaml"
    card_path.write_text(yaml.safe_dump({**CARD.to_dict(), "summary": "Another summary."}))
    _, card = trained_network(write(tmp_path / "model.pt", card=None), card_path)
    assert card.summary == "Another summary."
