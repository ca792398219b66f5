"""ViT-CoMer against the paper's equations, published sizes, light switches, X-CoMer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from dense_perception.core.errors import InputError
from dense_perception.nets.upernet import UperNet, UperNetConfig
from dense_perception.nets.vit_comer import (
    VIT_COMER_VARIANTS,
    X_COMER_VARIANTS,
    ViTCoMer,
    ViTCoMerConfig,
    XCoMer,
    XCoMerConfig,
)
from test.nets import comer_reference
from test.support.randomise import randomise

TINY = ViTCoMerConfig(
    dim=12,
    depth=8,
    heads=2,
    deform_heads=3,
    deform_ratio=0.5,
    mrfp_ratio=1.5,
    stem=6,
    grid=(3, 3),
    extra=2,
)
TINY_X = XCoMerConfig(
    dim=8,
    depths=(1, 2, 1, 1),
    heads=(1, 2, 2, 2),
    window=3,
    width=12,
    deform_heads=3,
    stem=6,
    extra=1,
)


def detection(config: ViTCoMerConfig) -> ViTCoMerConfig:
    """The authors' detection form: narrow MRFP, no interaction of levels, windows of 14."""
    return replace(
        config, interaction=(False,) * 4, stage_features=False, mrfp_ratio=0.5, window=14
    )


def detection_dinov2(config: ViTCoMerConfig) -> ViTCoMerConfig:
    """Their detection form on DINOv2, stored for 592 x 592: there the levels interact."""
    return replace(detection(config), interaction=(True,) * 4, grid=(37, 37))


FORMS = {
    "segmentation": TINY,
    "detection": replace(detection(TINY), window=3),
    "detection on DINOv2": replace(detection_dinov2(TINY), window=2, grid=(5, 5)),
    "light": replace(TINY, to_v=(True, False, True, False), to_c=(False, True, True, False)),
    "ViT alone informs": replace(TINY, to_v=(False,) * 4, interaction=(True, False, True, False)),
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size_hw", [(64, 96)])
def test_the_maps_equal_the_equations(form: str, size_hw: tuple[int, int]) -> None:
    net = ViTCoMer(FORMS[form]).double().eval()
    randomise(net)
    image = torch.randn(2, 3, *size_hw, dtype=torch.float64)
    with torch.no_grad():
        got = net(image)
        expected = comer_reference.vit_comer(net.state_dict(), FORMS[form], image)
    assert [tuple(m.shape[-2:]) for m in got] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for ours, naive in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, naive, atol=1e-10, rtol=0)


def test_a_fresh_network_leaves_the_transformer_undisturbed() -> None:
    """gamma starts at zero, so the pretrained ViT computes what it did before."""
    net = ViTCoMer(TINY).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (alone,), grid_hw = net.vit(image)
        x, _ = net.vit.embed(image)
        x = x.unflatten(1, grid_hw)
        net(image)
        with_comer, _ = net.neck.steps()[0].before(
            x, net.neck.start(image)[1], comer_pyramid(image)
        )
    torch.testing.assert_close(with_comer, x, atol=0, rtol=0)
    assert torch.isfinite(alone).all()


def comer_pyramid(image: torch.Tensor) -> object:
    from dense_perception.nets.comer import Pyramid

    return Pyramid(image.shape[2], image.shape[3])


@pytest.mark.parametrize(
    ("variant", "counted", "published"),
    [("tiny", 10.62e6, 38.7e6), ("small", 31.28e6, 61.4e6), ("base", 110.6e6, 144.7e6)],
)
def test_segmentation_parameters(variant: str, counted: float, published: float) -> None:
    with torch.device("meta"):
        backbone = ViTCoMer(VIT_COMER_VARIANTS[variant])
        net = UperNet(backbone, UperNetConfig(classes=150))
    assert parameters(backbone) == pytest.approx(counted, rel=0.005)
    assert parameters(net) == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize(("variant", "counted"), [("small", 30.46e6), ("base", 109.05e6)])
def test_detection_parameters(variant: str, counted: float) -> None:
    """The authors' detection configurations are those on DINOv2."""
    with torch.device("meta"):
        backbone = ViTCoMer(detection_dinov2(VIT_COMER_VARIANTS[variant]))
    assert parameters(backbone) == pytest.approx(counted, rel=0.005)


def test_every_variant_and_form_builds() -> None:
    with torch.device("meta"):
        for config in VIT_COMER_VARIANTS.values():
            sizes = [parameters(ViTCoMer(c)) for c in (config, detection(config))]
            assert sizes[0] > sizes[1]
        for x_config in X_COMER_VARIANTS.values():
            net = XCoMer(x_config)
            assert parameters(net) > parameters(net.swin)


def test_light_variants_are_smaller_and_need_no_dead_weight() -> None:
    light = ViTCoMer(FORMS["light"])
    assert parameters(light) < parameters(ViTCoMer(TINY))
    outputs = light(torch.randn(2, 3, 64, 64))
    sum(output.square().mean() for output in outputs).backward()
    idle = [
        name
        for name, parameter in light.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert idle == []


def test_freezing_the_transformer_trains_the_convolutional_branch_alone() -> None:
    for net in (ViTCoMer(TINY), XCoMer(TINY_X)):
        net.freeze_transformer()
        trained = {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad}
        assert trained <= {"neck", "adapt"}
        assert trained


@pytest.mark.parametrize("stage_features", [True, False])
def test_comer_on_swin_has_the_maps_of_comer_on_vit(stage_features: bool) -> None:
    net = XCoMer(replace(TINY_X, stage_features=stage_features)).eval()
    randomise(net)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = net(image)
        alone = [net(image[i : i + 1]) for i in range(2)]
    assert [tuple(m.shape) for m in maps] == [
        (2, 12, 16, 24),
        (2, 12, 8, 12),
        (2, 12, 4, 6),
        (2, 12, 2, 3),
    ]
    for index, together in enumerate(maps):
        torch.testing.assert_close(
            together, torch.cat([a[index] for a in alone]), atol=1e-5, rtol=1e-5
        )


def test_every_stage_of_swin_hears_the_convolutions_and_is_heard() -> None:
    """Gradients of the output reach each stage's exchange in both directions."""
    net = XCoMer(TINY_X)
    randomise(net)
    sum(m.square().mean() for m in net(torch.randn(2, 3, 64, 64))).backward()
    for stage in net.neck.steps():
        assert stage.to_v.gamma_c.grad.abs().max() > 0
        assert next(stage.to_c.parameters()).grad.abs().max() > 0
    for block in net.swin.stages:
        assert next(block.blocks[0].parameters()).grad.abs().max() > 0


def test_wrong_sizes_are_refused_with_the_cure() -> None:
    with pytest.raises(InputError, match="96x64"):
        ViTCoMer(TINY)(torch.zeros(1, 3, 48, 80))
    with pytest.raises(InputError, match="multiple"):
        ViTCoMerConfig(depth=10)
