"""Cards to modules: strict about what they say."""

from __future__ import annotations

import pytest

from dense_perception.core.errors import CardError, ModelNotFoundError
from dense_perception.nets import zoo


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"family": "swin"}, "expected one of"),
        ({"variant": "huge"}, "'dpt'/'huge'"),
        ({"feature": 48}, r"unknown entries \['feature'\]"),
        ({"features": "48"}, "network.features is '48'"),
        ({"qk_norm": 1}, "network.qk_norm is 1"),
        ({"height": 100}, "height is 100, expected a multiple of 32"),
        ({"head_features": [24]}, "expected two numbers"),
        ({"head_features": [24, 1.5]}, "network.head_features"),
        ({"heads": 7}, "7 heads do not divide 192"),
        ({"min_m": 30.0}, "min_m is 30.0 and max_m is 20.0"),
    ],
)
def test_wrong_network_is_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(CardError, match=complaint):
        zoo.build({**zoo.default_network("dpt_tiny_indoor"), **change})


def test_default_network_is_a_copy() -> None:
    zoo.default_network("dpt_tiny_indoor")["mean"].append(1)
    assert zoo.normalisation(zoo.default_network("dpt_tiny_indoor")) == ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ModelNotFoundError, match="dpt_tiny_indoor"):
        zoo.default_network("nothing")


@pytest.mark.parametrize("std", [[0.5, 0.5], [0.5, 0.5, 0.0], "0.5", None, [float("nan")] * 3])
def test_wrong_normalisation_is_named(std: object) -> None:
    with pytest.raises(CardError, match=r"network\.std is .*expected three numbers"):
        zoo.normalisation({"mean": [0.5] * 3, "std": std})
