"""``dense-perception evaluate --images``: mean IoU and pixel accuracy on annotated pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.evaluation.segmentation import (
    Confusion,
    Labeller,
    compare,
    first_label,
    picture_pairs,
)


def main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dense_perception.core.labels import LABEL_SETS

    if options.labels is None:
        raise InputError("--images needs --labels with the folder of their label PNGs")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit is {options.limit}, expected 1 or more")
    pairs = picture_pairs(options.images, options.labels)[: options.limit]
    with _labeller(options) as (card, label):
        assert card.segmentation is not None
        names = LABEL_SETS[card.segmentation.labels].labels
        confusion = Confusion(len(names))
        bar = tqdm(pairs, unit="picture", disable=None, file=sys.stderr)
        problems = list(compare(label, iter(bar), confusion, first_label(card)))
    for problem in problems:
        print(f"dense-perception: {problem}", file=sys.stderr)
    if len(problems) == len(pairs):
        raise InputError(f"none of the {len(pairs)} pictures could be compared")
    summary: dict[str, Any] = {
        "model": card.name,
        "images": str(options.images),
        "pictures": len(pairs) - len(problems),
        "multi_scale": options.multi_scale,
        "flip": options.flip,
        "miou_percent": round(100 * confusion.mean_iou, 3),
        "pixel_accuracy_percent": round(100 * confusion.pixel_accuracy, 3),
        "iou_percent": {
            name: round(100 * float(iou), 3)
            for name, iou in zip(names, confusion.iou, strict=True)
            if iou == iou  # NaN: a class that occurs nowhere
        },
        "problems": problems,
    }
    print(json.dumps(summary) if options.json else _table(summary))
    return 1 if problems else 0


@contextmanager
def _labeller(options: argparse.Namespace) -> Iterator[tuple[ModelCard, Labeller]]:
    """The card, and labels of the picture's size from the exported or the published network."""
    if options.multi_scale or options.flip or options.weights is not None:
        from dense_perception.core.registry import find_card
        from dense_perception.nets.labeller import multi_scale_labeller

        card = _segmenting(find_card(options.model))
        scales = {"multi_scale": options.multi_scale, "flip": options.flip}
        yield card, multi_scale_labeller(card, options.weights, **scales)
        return
    from dense_perception.runtime.perceiver import Perceiver

    with Perceiver.load(
        options.model,
        backend=options.backend,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        max_output_side=8192,
        trust_engine=options.trust_engine,
    ) as perceiver:
        card = _segmenting(perceiver.card)

        def label(rgb_hwc: Any) -> Any:
            labels = perceiver(rgb_hwc).labels
            assert labels is not None
            return labels.values_hw

        yield card, label


def _segmenting(card: ModelCard) -> ModelCard:
    if card.segmentation is None:
        raise InputError(f"model {card.name} gives no labels: choose a segmentation model")
    return card


def _table(summary: dict[str, Any]) -> str:
    views = [name for name in ("multi_scale", "flip") if summary[name]]
    how = " and ".join(view.replace("_", " ") for view in views) or "single scale"
    lines = [
        f"{summary['model']}, {how}, {summary['pictures']} pictures of {summary['images']}",
        "",
        f"mean IoU        {summary['miou_percent']:6.2f} %  "
        f"({len(summary['iou_percent'])} classes occur)",
        f"pixel accuracy  {summary['pixel_accuracy_percent']:6.2f} %",
    ]
    ranked = sorted(summary["iou_percent"].items(), key=lambda item: item[1])
    if len(ranked) > 1:
        worst = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:3])
        best = ", ".join(f"{name} {iou:.1f}" for name, iou in ranked[:-4:-1])
        lines += [f"best classes    {best}", f"worst classes   {worst}"]
    return "\n".join(lines)
