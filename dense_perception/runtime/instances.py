"""The things of a graph's lists in a frame's own pixels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.instance_lists import BOXES, CLASSES, IDS, LIST, MASKS, SCORES
from dense_perception.core.prediction import Instances, renumbered
from dense_perception.imaging.resize import (
    picture_box,
    restore_gray,
    restore_labels,
    without_padding,
)

_PARTS = frozenset(("instances", IDS, MASKS))


def graph_outputs(names: Collection[str]) -> set[str]:
    """What to ask the graph for: the list in place of ``instances``, and beside ids and masks."""
    listed = set(LIST) if _PARTS.intersection(names) else set()
    return {*names} - {"instances"} | listed


def restore_instances(
    outputs: Mapping[str, np.ndarray],
    card: ModelCard,
    picture_wh: tuple[int, int],
    size_wh: tuple[int, int],
) -> tuple[Instances | None, dict[str, np.ndarray]]:
    """The things at the output size, ``None`` if nobody wants them, and the other outputs.

    ``outputs`` are those of one frame, ``picture_wh`` is the frame's size. Boxes are cut at the
    picture's border; rows that then show nothing of it, and those that are not finite, are left
    out. Never a view of the runtime's memory.
    """
    further = {name: array for name, array in outputs.items() if name not in (*LIST, IDS, MASKS)}
    if SCORES not in outputs or card.instances is None:
        return None, further
    labels = card.instances.label_set
    boxes_m4 = _fitted(outputs[BOXES], card, picture_wh, size_wh)
    shown_m2 = boxes_m4[:, 2:] > boxes_m4[:, :2]  # false where one is NaN
    kept_m = (outputs[SCORES] > 0) & shown_m2.all(axis=1)
    kept_m &= outputs[CLASSES] < len(labels.labels)
    ids_hw = masks_nhw = None
    if IDS in outputs:
        ids_hw = _shown(outputs[IDS], card, picture_wh)
        count = np.count_nonzero(kept_m)
        if not kept_m[:count].all() or int(ids_hw.max(initial=0)) > count:
            ids_hw = _table(kept_m, ids_hw.dtype)[ids_hw]
        ids_hw = restore_labels(ids_hw, *size_wh)
    if MASKS in outputs:
        shown = [_shown(mask, card, picture_wh) for mask in outputs[MASKS][kept_m]]
        masks_nhw = np.zeros((len(shown), *size_wh[::-1]), np.uint8)
        for target_hw, mask_hw in zip(masks_nhw, shown, strict=True):
            target_hw[:] = restore_gray(mask_hw, *size_wh)
    found = Instances(
        boxes_m4[kept_m],
        outputs[SCORES][kept_m],
        outputs[CLASSES][kept_m],
        labels,
        ids_hw,
        masks_nhw,
    )
    return found, further


def _fitted(
    boxes_m4: np.ndarray, card: ModelCard, picture_wh: tuple[int, int], size_wh: tuple[int, int]
) -> np.ndarray:
    """From the network's pixels to those of the output, cut at the picture's border."""
    left, top, wide, high = picture_box(card.input, *picture_wh)
    scale = np.array([size_wh[0] / wide, size_wh[1] / high] * 2, np.float32)
    moved_m4 = (boxes_m4 - np.array([left, top] * 2, np.float32)) * scale
    return np.clip(moved_m4, 0, np.array([*size_wh] * 2, np.float32))


def _shown(map_hw: np.ndarray, card: ModelCard, picture_wh: tuple[int, int]) -> np.ndarray:
    return without_padding(map_hw, card.input, *picture_wh)


def _table(kept_m: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """:func:`.renumbered` for every id that the type can hold; ids of no row become 0."""
    table = np.zeros(np.iinfo(dtype).max + 1, dtype)
    known = renumbered(kept_m, dtype)[: len(table)]
    table[: len(known)] = known
    return table
