"""The configuration: what is shipped loads, what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dense_perception.core.errors import TrainingError
from dense_perception.nets.zoo import build
from dense_perception.training.config import TrainingConfig
from test.support.models import default_network

SHIPPED = Path(__file__).parents[2] / "config" / "training" / "dpt_tiny_indoor.yaml"
MINIMAL: dict[str, Any] = {"name": "tiny", "summary": "A test.", "network": {"family": "dpt"}}


def test_the_shipped_configuration_is_the_default_network() -> None:
    config = TrainingConfig.from_yaml(SHIPPED)
    assert config.network == default_network()
    assert (config.width, config.height) == (config.network["width"], config.network["height"])
    parts = [name for name, _ in build(config.network).named_modules()]
    for name in (*config.rates, *config.fixed_statistics, *config.feature_mix):
        assert name in parts
    for stage in config.stages:
        assert stage.width % 32 == 0
        assert stage.height % 32 == 0


def test_plain_data_round_trip(tmp_path: Path) -> None:
    config = TrainingConfig.from_yaml(SHIPPED)
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert TrainingConfig.from_yaml(path) == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"learning_rat": 1e-3}, "unknown entries.*learning_rat"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"learning_rate": True}, "learning_rate is True"),
        ({"batch": 3}, "unknown entries"),
        ({"width": 256.5}, "width is 256.5, expected a whole number"),
        ({"ema_decay": 1.5}, r"ema_decay is 1.5, expected a number in \[0, 1\]"),
        ({"augment": {"jpeg": 1}}, "augment: unknown entries.*jpeg"),
        ({"augment": [1]}, "augment: expected a mapping"),
        ({"losses": {"silog": -1}}, "losses: silog is -1"),
        ({"stages": {"until": 1.0}}, "stages is .* expected a list"),
        ({"stages": [{"until": 0.5}]}, "rising shares that end with 1.0"),
        ({"stages": [{"until": 1.0, "batch": 0}]}, r"stages\[0\]: batch is 0"),
        ({"rates": {"stem": "slow"}}, "rates.stem is 'slow'"),
        ({"fixed_statistics": "stem"}, "expected a list of texts"),
        ({"min_m": 30.0}, "min_m 30.0 is not below max_m"),
        ({"arithmetic": "fp8"}, "arithmetic is .fp8., expected one of"),
        ({"optimiser": "adam"}, "optimiser is .adam., expected one of"),
        ({"schedule": "step"}, "schedule is .step., expected one of"),
        ({"losses": {"weighting": "learnt"}}, "losses: weighting is .learnt., expected one of"),
        ({"tuning": {"method": "adapter"}}, "tuning: method is .adapter., expected one of"),
        ({"minutes": 0}, "no length"),
        ({"name": ""}, "name is ''"),
    ],
)
def test_wrong_entries_are_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint) as caught:
        TrainingConfig.from_dict({**MINIMAL, **change}, "my.yaml")
    assert "my.yaml" in str(caught.value)


def test_missing_entries_are_named() -> None:
    with pytest.raises(TrainingError, match=r"'network'.* missing"):
        TrainingConfig.from_dict({"name": "a", "summary": "b"}, "my.yaml")


@pytest.mark.parametrize("text", ["- a list", "a: [", "!!python/object/apply:os.getcwd []"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingError, match=r"bad\.yaml"):
        TrainingConfig.from_yaml(path)


def test_stages_follow_each_other() -> None:
    stages = [{"until": 0.6, "batch": 1}, {"until": 1.0, "batch": 2}]
    config = TrainingConfig.from_dict({**MINIMAL, "stages": stages}, "x")
    assert [config.stage_at(share).batch for share in (0, 0.59, 0.6, 1.0, 1.2)] == [1, 1, 2, 2, 2]
