"""A small random Mask2Former of ``transformers``, the same of ours, and naive merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dense_perception.nets.checkpoint import Checkpoint
from dense_perception.nets.mask2former.mask2former import Mask2Former, SwinMask2FormerConfig
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.weights import load_weights
from test.support.randomise import randomise

TINY: dict[str, Any] = {
    "dim": 8,
    "depths": (1, 2, 1, 1),
    "heads": (1, 2, 2, 2),
    "window": 3,
    "classes": 6,
    "thing_classes": (0, 2, 3),
    "count": 7,
    "channels": 32,
    "attention_heads": 4,
    "queries": 7,
    "pixel_layers": 2,
    "pixel_hidden": 24,
    "query_layers": 4,
    "query_hidden": 40,
}


def theirs() -> nn.Module:
    """In fp64, every parameter random."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        embed_dim=TINY["dim"],
        depths=list(TINY["depths"]),
        num_heads=list(TINY["heads"]),
        window_size=TINY["window"],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    module = Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=TINY["channels"],
            mask_feature_size=TINY["channels"],
            hidden_dim=TINY["channels"],
            num_attention_heads=TINY["attention_heads"],
            encoder_layers=TINY["pixel_layers"],
            encoder_feedforward_dim=TINY["pixel_hidden"],
            decoder_layers=TINY["query_layers"] + 1,  # theirs count the learned queries
            dim_feedforward=TINY["query_hidden"],
            num_queries=TINY["queries"],
            num_labels=TINY["classes"],
        )
    )
    module = module.double().eval()
    randomise(module)
    return module


def ours(**changes: Any) -> Mask2Former:
    """In fp64, with fresh weights."""
    config = SwinMask2FormerConfig(**{**TINY, **changes})
    return Mask2Former(SwinTransformer(config), config).double().eval()


def loaded(weights: dict[str, Tensor], **changes: Any) -> Mask2Former:
    """Ours with a state dictionary of any published layout."""
    module = ours(**changes)
    load_weights(module, Checkpoint(Path("random"), weights))
    return module


def processor() -> Any:
    """Their image processor, of which only the merging is called: it needs no configuration."""
    from transformers.models.mask2former.image_processing_pil_mask2former import (
        Mask2FormerImageProcessorPil,
    )

    return Mask2FormerImageProcessorPil.__new__(Mask2FormerImageProcessorPil)


def _box(mask_hw: Tensor) -> list[float]:
    y, x = mask_hw.nonzero(as_tuple=True)
    return [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]


def naive_instances(
    class_logits_qk: Tensor, mask_logits_qhw: Tensor, count: int, threshold: float
) -> dict[str, Any]:
    """One pair of query and class after the other."""
    scores_qk = class_logits_qk.softmax(-1)[:, :-1]
    pairs = [(float(s), q, c) for q, row in enumerate(scores_qk) for c, s in enumerate(row)]
    rows: list[dict[str, Any]] = []
    for score, query, klass in sorted(pairs, reverse=True)[:count]:
        mask_hw = mask_logits_qhw[query] > 0
        if not mask_hw.any():
            continue
        inside = mask_logits_qhw[query].sigmoid()[mask_hw]
        score *= float(inside.sum()) / (len(inside) + 1e-6)
        if score >= threshold:
            rows.append({"score": score, "class": klass, "mask": mask_hw, "box": _box(mask_hw)})
    rows.sort(key=lambda row: -row["score"])
    ids_hw = torch.zeros(mask_logits_qhw.shape[1:], dtype=torch.int64)
    for index in reversed(range(len(rows))):
        ids_hw[rows[index]["mask"]] = index + 1
    return {"rows": rows, "ids": ids_hw}


def naive_panoptic(
    class_logits_qk: Tensor,
    mask_logits_qhw: Tensor,
    count: int,
    threshold: float,
    overlap: float,
    things: tuple[int, ...],
) -> dict[str, Any]:
    """The paper's inference, one query after the other."""
    scores_q, classes_q = class_logits_qk.softmax(-1).max(-1)
    masks_qhw = mask_logits_qhw.sigmoid()
    kept = [
        q
        for q in range(len(scores_q))
        if classes_q[q] < class_logits_qk.shape[1] - 1 and scores_q[q] > threshold
    ]
    labels_hw = torch.full(masks_qhw.shape[1:], 255)
    ids_hw = torch.zeros_like(labels_hw)
    confidence_hw = torch.zeros_like(masks_qhw[0])
    rows, pieces = [], []
    if kept:
        weighted = torch.stack([scores_q[q] * masks_qhw[q] for q in kept])
        winner_hw = weighted.argmax(0)
        for place, q in enumerate(kept):
            won_hw = winner_hw == place
            piece_hw = won_hw & (masks_qhw[q] >= 0.5)
            if not piece_hw.any() or won_hw.sum() / (masks_qhw[q] >= 0.5).sum() < overlap:
                continue
            pieces.append((float(scores_q[q]), int(classes_q[q]), piece_hw, weighted[place]))
    ranked = sorted((p for p in pieces if p[1] in things), key=lambda p: -p[0])[:count]
    for _, klass, piece_hw, weighted_hw in pieces:
        of_thing = [i for i, piece in enumerate(ranked) if piece[2] is piece_hw]
        if klass in things and not of_thing:
            continue
        labels_hw[piece_hw] = klass
        confidence_hw[piece_hw] = weighted_hw[piece_hw]
        if of_thing:
            ids_hw[piece_hw] = of_thing[0] + 1
    for score, klass, piece_hw, _ in ranked:
        rows.append({"score": score, "class": things.index(klass), "box": _box(piece_hw)})
    return {"rows": rows, "ids": ids_hw, "labels": labels_hw, "confidence": confidence_hw}
