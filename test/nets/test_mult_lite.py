"""MulTLite: the shared attention, any subset of tasks, its cost and its units."""

from __future__ import annotations

import pytest
import torch

from dense_perception.core.errors import CardError
from dense_perception.nets.mult import TASKS
from dense_perception.nets.mult_lite import MulTLite, MulTLiteConfig
from dense_perception.nets.zoo import build
from test.support.flops import cost

SMALL = MulTLiteConfig(
    64, 96, dim=32, depth=1, heads=2, decoder_dim=32, classes=5, windows=(2, 4, 4, 4)
)


@pytest.fixture(scope="module")
def network() -> MulTLite:
    torch.manual_seed(0)
    return MulTLite(SMALL).eval()


def test_every_task_has_a_map_of_the_images_size_in_its_unit(network: MulTLite) -> None:
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outputs = network(image, torch.tensor([60.0, 120.0]))
    assert outputs["logits"].shape == (2, 5, 64, 96)
    assert outputs["normals"].shape == (2, 3, 64, 96)
    torch.testing.assert_close(outputs["normals"].norm(dim=1), torch.ones(2, 64, 96))
    for name in ("edges", "keypoints", "reshading"):
        assert outputs[name].shape == (2, 64, 96)
        assert 0 <= float(outputs[name].min()) <= float(outputs[name].max()) <= 1
    assert set(outputs) == {"logits", *TASKS} - {"segmentation"}


def test_depth_scales_with_the_focal_length_and_nothing_else_does(network: MulTLite) -> None:
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        one, two = (network(image, torch.tensor([focal])) for focal in (70.0, 140.0))
    torch.testing.assert_close(two["depth"], 2 * one["depth"])
    assert all(torch.equal(one[name], two[name]) for name in one if name != "depth")


@pytest.mark.parametrize("tasks", [("edges",), ("depth", "segmentation"), TASKS])
def test_any_subset_of_tasks(tasks: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = MulTLiteConfig(**{**vars(SMALL), "tasks": tasks})
    part = MulTLite(config).eval()
    assert part.needs_focal == ("depth" in tasks)
    with torch.no_grad():
        outputs = part(torch.randn(1, 3, 64, 96), torch.tensor([90.0]))
    assert set(outputs) == {"logits" if task == "segmentation" else task for task in tasks}


def test_the_attention_is_computed_once_and_a_task_costs_what_is_its_own(
    network: MulTLite,
) -> None:
    """Dropping a task changes no other task: streams meet in the shared attention only."""
    config = MulTLiteConfig(**{**vars(SMALL), "tasks": ("normals", "edges")})
    part = MulTLite(config).eval()
    part.load_state_dict({key: network.state_dict()[key] for key in part.state_dict()})
    calls: list[int] = []
    handles = [
        stage.block.shared.register_forward_hook(lambda *_: calls.append(1))
        for stage in network.stages
    ]
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        whole, few = network(image, torch.tensor([90.0])), part(image)
    for handle in handles:
        handle.remove()
    assert len(calls) == 4
    for name in ("normals", "edges"):
        torch.testing.assert_close(few[name], whole[name])


def test_the_shipped_size_is_small() -> None:
    network = MulTLite(MulTLiteConfig())
    total = cost(_Fixed(network), 192, 256)
    assert total.parameters * 4 <= 20e6
    assert total.gflops <= 2.5
    single = MulTLite(MulTLiteConfig(tasks=("normals",)))
    # Five more tasks cost less than half of a network for one.
    assert total.gflops < 1.5 * cost(single, 192, 256).gflops


class _Fixed(torch.nn.Module):
    """The network with a focal length built in."""

    def __init__(self, network: MulTLite) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.network(image, image.new_ones(len(image)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tasks": ["colour"]}, "colour"),
        ({"tasks": ["edges", "edges"]}, "different"),
        ({"tasks": ["edges"], "reference": "normals"}, "reference task is 'normals'"),
        ({"decoder_heads": [5, 4, 2, 1]}, "decoder_heads"),
        ({"height": 100}, "multiple of 32"),
        ({"min_m": 30.0}, "lower first"),
    ],
)
def test_impossible_configurations_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(CardError, match=named):
        build({"family": "mult", "variant": "lite0", **changes})
