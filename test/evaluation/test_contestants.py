"""Contestants by their spelling, and published depth networks against a plain computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dense_perception.core.camera import Frame
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.core.registry import find_card
from dense_perception.evaluation.baselines import PriorFit
from dense_perception.evaluation.contestants import RunOptions, open_contestant, resolve
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.imaging.resize import network_input
from dense_perception.metrics.protocols import Protocol
from dense_perception.nets import estimator
from dense_perception.nets.zoo import normalisation

MODEL = "depth_anything_v2_small"


class Sloped(torch.nn.Module):
    """Depth from the red channel and the column, so that a mirror image is another one."""

    def forward(self, image_nchw: torch.Tensor) -> dict[str, torch.Tensor]:
        columns = torch.arange(image_nchw.shape[3], dtype=torch.float32)
        return {"depth": 10 + image_nchw[:, 0] + 0.01 * columns}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(estimator, "published_network", lambda card, path: (Sloped(), card, None))
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize("flip", [False, True])
def test_a_published_depth_network_is_fed_as_its_card_says(weights: Path, flip: bool) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (70, 98, 3), np.uint8)
    entry = resolve(f"network:{MODEL}", RunOptions(weights=weights, flip=flip))
    assert (entry.kind, entry.gives, entry.backend) == ("checkpoint", ("depth",), "pytorch")
    answer = open_contestant(entry).answer(TruthFrame("r", "k", Frame(rgb)))
    assert answer is not None
    assert answer.depth is not None
    card = find_card(MODEL)
    fed = network_input(rgb, card.input)
    mean, std = normalisation(card.network)
    red = (fed[..., 0].astype(np.float64) / 255 - mean[0]) / std[0]
    columns = np.arange(fed.shape[1])
    # Turned back, the mirror's columns count from the other side.
    expected = 10 + red + 0.01 * ((columns + columns[::-1]) / 2 if flip else columns)
    assert answer.depth.kind is DepthKind.RELATIVE_INVERSE
    assert answer.depth.values_hw.shape == rgb.shape[:2]
    assert answer.depth.values_hw.mean() == pytest.approx(expected.mean(), abs=0.02)
    assert answer.ms > 0


def test_what_is_no_contestant_is_refused(weights: Path) -> None:
    with pytest.raises(InputError, match="names no topic"):
        resolve("topic:depth", RunOptions())
    with pytest.raises(InputError, match="--multi-scale is for labels"):
        resolve(f"network:{MODEL}", RunOptions(weights=weights, multi_scale=True))


def test_the_prior_is_that_of_the_depth_that_counts() -> None:
    """What lies beyond the protocol's range moves neither the rows nor the constant."""
    near = np.full((64, 8), 2.0, np.float32)
    near[:, 4:] = 50.0
    empty = np.full((64, 8), 60.0, np.float32)
    prior = PriorFit()
    for depth_m in (near, empty):
        frame = Frame(np.zeros((64, 8, 3), np.uint8))
        prior.add(TruthFrame("r", "k", frame, depth_m=depth_m), Protocol(max_m=20.0))
    assert prior.prior().median_m == 2.0
    assert np.allclose(prior.prior().rows, 0.5)
