"""Cards to modules: strict about what they say."""

from __future__ import annotations

import pytest
import torch

from dense_perception.core.errors import CardError
from dense_perception.nets import zoo
from test.support.models import default_network


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"family": "swin"}, "expected one of"),
        ({"variant": "huge"}, "'dpt'/'huge'"),
        ({"feature": 48}, r"unknown entries \['feature'\]"),
        ({"features": "48"}, "network: features is '48'"),
        ({"qk_norm": 1}, "network: qk_norm is 1"),
        ({"height": 100}, "height is 100, expected a multiple of 32"),
        ({"head_features": [24]}, "expected two numbers"),
        ({"head_features": [24, 1.5]}, "network: head_features"),
        ({"heads": 7}, "7 heads do not divide 192"),
        ({"min_m": 30.0}, "min_m is 30.0 and max_m is 20.0"),
    ],
)
def test_wrong_network_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        zoo.build({**default_network(), **change})


def test_the_normalisation_of_the_shipped_network() -> None:
    assert zoo.normalisation(default_network()) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("std", [[0.5, 0.5], [0.5, 0.5, 0.0], "0.5", None, [float("nan")] * 3])
def test_wrong_normalisation_is_named(std: object) -> None:
    with pytest.raises(CardError, match=r"network\.std is .*expected three numbers"):
        zoo.normalisation({"mean": [0.5] * 3, "std": std})


@pytest.mark.parametrize("family", sorted({pair[0] for pair in zoo.variants()}))
def test_every_variant_builds(family: str) -> None:
    """On the meta device, where a network of any size costs nothing."""
    sizes = {}
    with torch.device("meta"):
        for variant in [name for kind, name in zoo.variants() if kind == family]:
            module = zoo.build({"family": family, "variant": variant})
            sizes[variant] = sum(p.numel() for p in module.parameters())
    order = [name for name in ("tiny", "small", "base", "large") if name in sizes]
    assert [sizes[name] for name in order] == sorted(sizes[name] for name in order)
    assert min(sizes.values()) > 1e6


def test_what_is_left_out_is_the_same_as_its_default() -> None:
    """A run from before an entry existed is resumed with the entry written out."""
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    before = {"family": "segmenter", "variant": "tiny", "classes": 2, **half}
    assert zoo.is_same(before, {**before, "score_norm": "layer", "std": (0.5, 0.5, 0.5)})
    for change in ({"score_norm": "scale"}, {"variant": "small"}, {"std": [0.4] * 3}):
        assert not zoo.is_same(before, {**before, **change})
