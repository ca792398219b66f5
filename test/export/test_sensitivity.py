"""The search for what must stay precise: few steps, and the answer of trying each unit alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import onnx
import pytest

from dense_perception.core.errors import ArtefactError
from dense_perception.export.sensitivity import MOST_UNITS, Judge, search

LAYERS = [f"layer{index}" for index in range(2 * MOST_UNITS)]


class Bench:
    """A network whose layers harm by known amounts, which add up; counts what was tried."""

    def __init__(self, harms: dict[str, float], quiet: float = 0.0) -> None:
        self.harms = {name: harms.get(name, quiet) for name in LAYERS}
        self.tried = 0

    def build(self, kept: Collection[str]) -> onnx.ModelProto:
        return cast("onnx.ModelProto", frozenset(kept))

    def drop(self, model: frozenset[str], most: int | None = None) -> float:
        self.tried += 1
        return sum(harm for name, harm in self.harms.items() if name not in model)

    def found(self, budget: float) -> tuple[str, ...]:
        return search(LAYERS, self.build, cast(Judge, self), budget).kept


def test_few_culprits_take_a_few_steps_each() -> None:
    bench = Bench({"layer5": 0.3, "layer60": float("inf"), "layer61": 0.2}, quiet=1e-5)
    # Layers come in units of two.
    assert bench.found(0.01) == ("layer4", "layer5", "layer60", "layer61")
    # 3 culprits in 2 units: 2 x 2 x log2(48) halves at most, then the two and one less.
    assert bench.tried <= 1 + 2 * 2 * 6 + 3


@pytest.mark.parametrize("seed", range(5))
def test_as_few_units_stay_precise_as_the_budget_allows(seed: int) -> None:
    """Against sorting the units by their own harm, which is the best where harms add up."""
    random = np.random.RandomState(seed)
    harms = dict(zip(LAYERS, random.exponential(1.0, len(LAYERS)) ** 3, strict=True))
    bench = Bench(harms)
    budget = 0.3 * sum(harms.values())
    units = sorted((harms[a] + harms[b] for a, b in zip(LAYERS[::2], LAYERS[1::2], strict=True)))
    best = next(n for n in range(len(units)) if sum(units[: len(units) - n]) <= budget)
    kept = bench.found(budget)
    assert bench.drop(frozenset(kept)) <= budget
    assert len(kept) / 2 <= best + 2


def test_everything_coarse_is_tried_first() -> None:
    bench = Bench({}, quiet=1e-5)
    assert bench.found(0.01) == ()
    assert bench.tried == 1


def test_harm_everywhere_is_refused() -> None:
    with pytest.raises(ArtefactError, match="nothing but fp32"):
        Bench({}, quiet=1.0).found(1e-3)
