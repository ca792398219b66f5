"""Rates, schedule, averages, folding and feature mixing, each against arithmetic by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from dense_perception.core.errors import TrainingError
from dense_perception.training.config import TrainingConfig
from dense_perception.training.feature_mixing import FeatureMixing, mix_statistics
from dense_perception.training.frozen import fold_frozen
from dense_perception.training.optimisation import (
    MovingAverage,
    longest_prefix,
    parameter_groups,
    set_modes,
)
from dense_perception.training.schedules import learning_rate

CONFIG = TrainingConfig("tiny", "A test.", {}, learning_rate=0.1, warmup=0.1, final_rate=0.01)


def network() -> nn.Module:
    torch.manual_seed(0)

    def block(channels_in: int, channels_out: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(channels_out)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        return nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), norm, nn.ReLU6()
        )

    return nn.ModuleDict({"stem": nn.Sequential(block(3, 4), block(4, 4)), "head": block(4, 2)})


def run(net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return net["head"](net["stem"](image))  # type: ignore[index]


def test_the_longest_prefix_decides_and_prefixes_end_at_dots() -> None:
    factors = {"stem": 0.1, "stem.1": 0.0}
    assert longest_prefix("stem.0.weight", factors) == 0.1
    assert longest_prefix("stem.1.weight", factors) == 0.0
    assert longest_prefix("stem.10.weight", factors) == 0.1
    assert longest_prefix("stemming.weight", factors) == 1.0


def test_groups_have_their_rates_and_frozen_parameters_none() -> None:
    net = network()
    config = replace(CONFIG, rates={"stem": 0.1, "stem.0": 0}, weight_decay=0.5)
    groups = parameter_groups(net, config)
    got = {(group["factor"], group["weight_decay"], len(group["params"])) for group in groups}
    assert got == {(0.1, 0.0, 2), (0.1, 0.5, 1), (1.0, 0.0, 2), (1.0, 0.5, 1)}
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.0.0.weight", "stem.0.1.weight", "stem.0.1.bias"]


def test_names_that_fit_nothing_are_refused() -> None:
    with pytest.raises(TrainingError, match="'sterm' names no part"):
        parameter_groups(network(), replace(CONFIG, rates={"sterm": 0.1}))
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        parameter_groups(network(), replace(CONFIG, rates={"stem": 0, "head": 0}))
    with pytest.raises(TrainingError, match="fixed_statistics: 'neck'"):
        set_modes(network(), replace(CONFIG, fixed_statistics=("neck",)))
    with pytest.raises(TrainingError, match="feature_mix: 'neck'"):
        FeatureMixing(network(), ["neck"], 0.5)


def test_schedule_warms_up_and_anneals() -> None:
    assert learning_rate(CONFIG, 0.05) == pytest.approx(0.05)
    assert learning_rate(CONFIG, 0.1) == pytest.approx(0.1)
    assert learning_rate(CONFIG, 0.55) == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert learning_rate(CONFIG, 1.0) == learning_rate(CONFIG, 7.0) == pytest.approx(0.001)
    assert learning_rate(CONFIG, 0.0) > 0


def test_fixed_statistics_stay_and_others_move() -> None:
    net = network()
    set_modes(net, replace(CONFIG, fixed_statistics=("stem",)))
    before = copy.deepcopy(net.state_dict())
    run(net, torch.randn(2, 3, 8, 8))
    after = net.state_dict()
    assert torch.equal(after["stem.0.1.running_mean"], before["stem.0.1.running_mean"])
    assert not torch.equal(after["head.1.running_mean"], before["head.1.running_mean"])


def test_moving_average_equals_its_definition_and_skips_what_is_frozen() -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    average = MovingAverage(net, decay=0.5)
    expected = net.weight.detach().clone()
    for update in range(1, 15):
        with torch.no_grad():
            net.weight.fill_(float(update))
        average.update(net)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    torch.testing.assert_close(average.state["weight"], expected)
    assert torch.equal(average.state["bias"], net.bias)


def test_folding_changes_nothing_but_the_arithmetic() -> None:
    net, plain = network(), network()
    config = replace(CONFIG, rates={"stem": 0}, fixed_statistics=("stem",))
    for one in (net, plain):
        parameter_groups(one, config)
        set_modes(one, config)
    assert fold_frozen(net) == 2
    image = torch.randn(2, 3, 8, 8)
    expected = run(plain, image)
    torch.testing.assert_close(run(net, image), expected, rtol=1e-5, atol=1e-5)
    assert list(net.state_dict()) == list(plain.state_dict())
    run(net, image).sum().backward()
    assert net["head"][0].weight.grad is not None  # type: ignore[index]


def test_layers_that_learn_or_count_are_not_folded() -> None:
    net = network()
    set_modes(net, CONFIG)
    parameter_groups(net, replace(CONFIG, rates={"stem": 0}))
    assert fold_frozen(net) == 0


def test_mixing_gives_the_mixed_statistics() -> None:
    features = torch.randn(3, 5, 12, 12, dtype=torch.float64) * 2 + 1
    share = torch.tensor([1.0, 0.0, 0.25], dtype=torch.float64)
    partner = torch.tensor([1, 2, 0])
    mixed = mix_statistics(features, share, partner)
    torch.testing.assert_close(mixed[0], features[0])
    for n in range(3):
        for statistic in (torch.mean, lambda x: x.std(unbiased=False)):
            own, other = statistic(features[n, 2]), statistic(features[int(partner[n]), 2])
            want = share[n] * own + (1 - share[n]) * other
            torch.testing.assert_close(statistic(mixed[n, 2]), want, rtol=1e-5, atol=1e-5)


def test_mixing_is_for_training_only() -> None:
    net = network()
    image = torch.randn(4, 3, 8, 8)
    net.eval()
    plain = run(net, image)
    mixing = FeatureMixing(net, ["stem.0"], 1.0)
    assert torch.equal(run(net, image), plain)
    set_modes(net, replace(CONFIG, fixed_statistics=("stem", "head")))
    assert not torch.equal(run(net, image), plain)
    mixing.close()
    torch.testing.assert_close(run(net, image), plain)
