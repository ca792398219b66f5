"""Trials keep their results, and do not mix them with those of other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.support.trials import Results, spread


def test_results_outlast_a_stop(tmp_path: Path) -> None:
    settings = {"steps": [3, 4], "corpora": ["rooms"]}
    Results(tmp_path / "t", settings).add("all", 2, {"miou": 0.25})
    again = Results(tmp_path / "t", settings)
    again.add("all", 3, {"miou": 0.5})
    assert again.of("all") == {2: {"miou": 0.25}, 3: {"miou": 0.5}}
    assert again.of("heads") == {}
    with pytest.raises(ValueError, match="another --out"):
        Results(tmp_path / "t", {**settings, "steps": [3, 5]})


def test_the_spread_is_the_samples() -> None:
    assert spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert spread([0.25], 2) == "0.25"
