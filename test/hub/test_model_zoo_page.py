"""The table of docs/model_zoo.md is the cards'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from dense_perception.core.card import ModelCard
from dense_perception.nets import zoo
from test.support.flops import cost

ROOT = Path(__file__).parents[2]
# Height and width of training and evaluation in the papers.
_SIZES = {
    "dpt": (384, 384),
    "upernet": (512, 512),
    "vit_comer": (512, 512),
    "mult": (464, 464),
    "mask2former": (896, 896),
}
_SHOWN = {
    "pq_percent": "PQ {}",
    "mask_ap_percent": "mask AP {}",
    "miou_percent": "mIoU {}",
    "absrel": "AbsRel {}",
    "nyu_d125_percent": "NYU d>1.25 {} %",
}


def table() -> Iterator[str]:
    """The page's table, a line at a time."""
    yield "| model | output | size | parameters | GFLOP | export | weights' licence | published |"
    yield "|---|---|---|---:|---:|---|---|---|"
    for path in sorted((ROOT / "models").glob("*.yaml")):
        card = ModelCard.from_yaml(path)
        if card.source is None:
            continue
        if card.segmentation is not None:
            output = f"{card.segmentation.labels} labels" + (
                " and things" if card.instances else ""
            )
        elif card.instances is not None:
            output = f"{card.instances.labels} things"
        else:
            assert card.depth is not None
            output = f"{card.depth.kind.value.replace('_', ' ')} depth"
        use = {True: "", False: " (NC)", None: " (unclear)"}[card.licence["commercial"]]
        licence = card.licence["weights"].split(",")[0]
        result = next(
            (text.format(card.results[key]) for key, text in _SHOWN.items() if key in card.results),
            "",
        )
        export = ""
        if "export_cpu_s" in card.cost:
            export = f"{card.cost['export_cpu_s']} s, {card.cost['export_peak_gb']} GB"
        yield (
            f"| `{card.name}` | {output} | {card.input.width}x{card.input.height} "
            f"| {card.cost['parameters'] / 1e6:.1f} M | {card.cost['gflops']:.0f} "
            f"| {export} | {licence}{use} | {result} |"
        )


# Counting takes seconds a network: the smallest of each family stands for its other sizes.
_COUNTED = {
    "dpt/base",
    "mask2former/vit_comer_tiny",
    "mult/swin_tiny",
    "upernet/swin_tiny",
    "vit_comer/swin_tiny",
    "vit_comer/tiny",
}


def other_networks() -> Iterator[tuple[str, str, float, float | None]]:
    """What can be built and has no card with hosted weights: name, size, millions of parameters,
    and GFLOP where they are counted here.
    """
    for family, variant in zoo.variants():
        alone = f"{family}/{variant}"
        if family not in ("upernet", "vit_comer", "mult") and not alone.startswith(
            ("dpt/base", "mask2former/vit_comer")
        ):
            continue
        if (family, variant) == ("mult", "lite0"):  # has a model of its own
            continue
        height, width = _SIZES[family]
        with torch.device("meta"):
            network = zoo.build({"family": family, "variant": variant})
        parameters = sum(each.numel() for each in network.parameters()) / 1e6
        gflops = cost(network, height, width).gflops if alone in _COUNTED else None
        yield alone, f"{width}x{height}", parameters, gflops


def things_without_hosted_weights() -> Iterator[str]:
    """The third table, a line at a time."""
    yield "| model | size | parameters | GFLOP | published: box and mask AP, 12 and 36 epochs |"
    yield "|---|---|---:|---:|---|"
    for path in sorted((ROOT / "models").glob("*_vit_comer_*.yaml")):
        card = ModelCard.from_yaml(path)
        found = card.results
        pairs = [
            ", ".join(str(found[f"{kind}_ap_{times}x_percent"]) for kind in ("box", "mask"))
            for times in (1, 3)
            if f"box_ap_{times}x_percent" in found
        ]
        result = "; ".join(pairs) or (f"mIoU {found['miou_percent']}" if found else "")
        yield (
            f"| `{card.name}` | {card.input.width}x{card.input.height} "
            f"| {card.cost['parameters'] / 1e6:.1f} M | {card.cost['gflops']:.0f} | {result} |"
        )


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs/model_zoo.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in page if line.startswith("|")]
    published = list(table())
    assert lines[: len(published)] == published
    things = list(things_without_hosted_weights())
    assert lines[-len(things) :] == things
    heading, _, *rows = lines[len(published) : -len(things)]
    assert heading == "| network | size | parameters | GFLOP |"
    counted = set()
    for row, (name, size, parameters, gflops) in zip(rows, other_networks(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == [f"`{name}`", size, f"{parameters:.1f} M"]
        if gflops is not None:
            counted.add(name)
            assert cells[3] == f"{gflops:.0f}", name
    assert counted == _COUNTED
