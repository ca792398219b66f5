"""From the queries' classes and masks to the answers of the three tasks, with fixed shapes.

Section 3.1 of arXiv:2112.01527 and section 3.4 of MaskFormer's paper (arXiv:2107.06278). What the
authors do in loops over a varying number of segments is done here for all queries at once: rows
that do not count are 0. Shapes: B frames, Q queries, K classes, M instances, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.nets.detection.boxes import boxes_around

VOID = 255
# The probability that a pixel of a mask has at least.
INSIDE = 0.5
_TINY = 1e-30


def enlarge(mask_logits_bqhw: Tensor, size_hw: tuple[int, int], stride: int = 4) -> Tensor:
    """Mask logits, one for ``stride`` x ``stride`` pixels, at ``size_hw``; the rest is cut off."""
    rows, columns = mask_logits_bqhw.shape[-2:]
    full_bqhw = F.interpolate(
        mask_logits_bqhw,
        size=(stride * rows, stride * columns),
        mode="bilinear",
        align_corners=False,
    )
    return full_bqhw[..., : size_hw[0], : size_hw[1]]


def semantic(class_logits_bqk: Tensor, mask_logits_bqhw: Tensor) -> dict[str, Tensor]:
    """``logits`` (B, K, H, W): the logarithm of each class's masks, weighted by its probability.

    Their softmax is the share of each class in the sum over all; the largest is the authors'.
    """
    probability_bqk = torch.softmax(class_logits_bqk, dim=-1)[..., :-1]
    mask_bqn = mask_logits_bqhw.sigmoid().flatten(2)
    total_bkn = probability_bqk.transpose(1, 2) @ mask_bqn
    return {"logits": total_bkn.clamp(min=_TINY).log().unflatten(2, mask_logits_bqhw.shape[-2:])}


def instances(
    class_logits_bqk: Tensor, mask_logits_bqhw: Tensor, count: int, threshold: float
) -> dict[str, Tensor]:
    """The ``count`` best pairs of query and class, by class times mean mask probability.

    Pairs are chosen by class probability alone, as the authors do. One below ``threshold`` or
    without a pixel is none.

    Returns ``boxes`` (B, M, 4), ``box_scores`` (B, M) descending, ``box_classes`` (B, M) int64,
    ``instance_ids`` (B, H, W) int64: 0 for none, else row + 1 of the highest score that covers the
    pixel; ``masks`` (B, M, H, W) probabilities, also outside of the pixels that count.

    :param mask_logits_bqhw: at the size of the image.
    """
    classes = class_logits_bqk.shape[-1] - 1
    probability_bn = torch.softmax(class_logits_bqk, dim=-1)[..., :-1].flatten(1)
    class_score_bm, pair_bm = probability_bn.topk(count, dim=1)
    query_bm = torch.div(pair_bm, classes, rounding_mode="floor")
    class_bm = pair_bm - query_bm * classes
    logits_bmhw = pick(mask_logits_bqhw, query_bm)
    inside_bmhw = (logits_bmhw > 0).to(logits_bmhw.dtype)
    probability_bmhw = logits_bmhw.sigmoid()
    area_bm = inside_bmhw.sum(dim=(2, 3))
    mask_score_bm = (probability_bmhw * inside_bmhw).sum(dim=(2, 3)) / (area_bm + 1e-6)
    score_bm = class_score_bm * mask_score_bm
    score_bm = score_bm * ((score_bm >= threshold) & (area_bm > 0)).to(score_bm.dtype)

    score_bm, order_bm = score_bm.topk(count, dim=1)
    used_bm = score_bm > 0
    class_bm = torch.gather(class_bm, 1, order_bm) * used_bm.to(class_bm.dtype)
    used_bm11 = used_bm.to(score_bm.dtype)[:, :, None, None]
    inside_bmhw = pick(inside_bmhw, order_bm) * used_bm11
    # The first row that covers a pixel has the greatest weight there.
    weight_m11 = torch.arange(count, 0, -1, dtype=score_bm.dtype, device=score_bm.device)
    first_bhw = (inside_bmhw * weight_m11[:, None, None]).amax(dim=1)
    ids_bhw = torch.where(first_bhw > 0, count + 1 - first_bhw, torch.zeros_like(first_bhw))
    return {
        "boxes": boxes_around(inside_bmhw),
        "box_scores": score_bm,
        "box_classes": class_bm,
        "instance_ids": ids_bhw.to(torch.int64),
        "masks": pick(probability_bmhw, order_bm) * used_bm11,
    }


def panoptic(
    class_logits_bqk: Tensor,
    mask_logits_bqhw: Tensor,
    count: int,
    threshold: float,
    overlap: float,
    things: Sequence[int],
) -> dict[str, Tensor]:
    """Every pixel goes to one query; labels, confidence and instances are of that one merge.

    A query counts if its best class is an object with more than ``threshold``. A pixel goes to the
    query with the highest class times mask probability, and to none where that query's mask
    probability is below 1/2. A query that wins fewer pixels than ``overlap`` of its mask's is
    dropped. Segments of one stuff class are one; of more than ``count`` things the best are kept.

    Returns :func:`instances`' entries and ``labels`` (B, H, W) int64, 255 for none, ``confidence``
    (B, H, W), 0 for none: the product by which the query won. ``box_classes`` are indices into
    ``things``, boxes and ids are of the pixels won.

    :param mask_logits_bqhw: at the size of the image.
    :param things: the classes of things, among the K; the others are stuff.
    """
    queries, classes = class_logits_bqk.shape[1], class_logits_bqk.shape[2] - 1
    device, dtype = mask_logits_bqhw.device, mask_logits_bqhw.dtype
    score_bq, class_bq = torch.softmax(class_logits_bqk, dim=-1).max(dim=-1)
    kept_bq = (class_bq < classes) & (score_bq > threshold)
    mask_bqhw = mask_logits_bqhw.sigmoid()
    # Of queries that do not count nothing wins; where none counts, the first does and is void.
    weight_bq = torch.where(kept_bq, score_bq, torch.full_like(score_bq, -1.0))
    best_bhw, winner_bhw = (mask_bqhw * weight_bq[:, :, None, None]).max(dim=1)
    inside_bhw = torch.gather(mask_bqhw, 1, winner_bhw.unsqueeze(1)).squeeze(1) >= INSIDE

    row_q11 = torch.arange(queries, device=device)[:, None, None]
    won_bqhw = winner_bhw.unsqueeze(1) == row_q11
    inside_bqhw = mask_bqhw >= INSIDE
    won_bq = won_bqhw.to(dtype).sum(dim=(2, 3))
    area_bq = inside_bqhw.to(dtype).sum(dim=(2, 3))
    left_bq = (won_bqhw & inside_bqhw).to(dtype).sum(dim=(2, 3))
    valid_bq = kept_bq & (left_bq > 0) & (won_bq >= overlap * area_bq)

    # Position among the things by class, -1 for stuff and for "no object".
    thing_k = torch.full((classes + 1,), -1, dtype=torch.int64)
    thing_k[torch.tensor(list(things), dtype=torch.int64)] = torch.arange(len(things))
    thing_bq = thing_k.to(device)[class_bq]
    is_thing_bq = valid_bq & (thing_bq >= 0)
    thing_score_bm, query_bm = (score_bq * is_thing_bq.to(score_bq.dtype)).topk(count, dim=1)
    used_bm = thing_score_bm > 0
    # Row + 1 of each query, 0 for those that have none.
    row_m = torch.arange(1, count + 1, device=device)
    row_bm = torch.where(used_bm, row_m, torch.zeros_like(row_m))
    is_row_bmq = query_bm.unsqueeze(2) == row_q11.flatten()
    id_bq = (row_bm.unsqueeze(2) * is_row_bmq.to(row_bm.dtype)).sum(dim=1)
    valid_bq = valid_bq & ((thing_bq < 0) | (id_bq > 0))

    def of_winner(value_bq: Tensor) -> Tensor:
        return torch.gather(value_bq, 1, winner_bhw.flatten(1)).unflatten(1, winner_bhw.shape[1:])

    filled_bhw = inside_bhw & (of_winner(valid_bq.to(torch.int64)) > 0)
    labels_bhw = torch.where(filled_bhw, of_winner(class_bq), VOID)
    ids_bhw = torch.where(filled_bhw, of_winner(id_bq), 0)
    used_bm11 = used_bm.to(dtype)[:, :, None, None]
    return {
        "labels": labels_bhw,
        "confidence": torch.where(filled_bhw, best_bhw, torch.zeros_like(best_bhw)),
        "boxes": boxes_around((ids_bhw.unsqueeze(1) == row_m[:, None, None]).to(dtype)),
        "box_scores": thing_score_bm,
        "box_classes": torch.gather(thing_bq, 1, query_bm) * used_bm.to(thing_bq.dtype),
        "instance_ids": ids_bhw,
        "masks": pick(mask_bqhw, query_bm) * used_bm11,
    }


def pick(maps_bqhw: Tensor, index_bm: Tensor) -> Tensor:
    """Rows ``index_bm`` (B, M) of each frame's maps: (B, M, H, W)."""
    frames, rows = maps_bqhw.shape[:2]
    first_b1 = torch.arange(frames, device=index_bm.device).unsqueeze(1) * rows
    picked = maps_bqhw.flatten(0, 1).index_select(0, (index_bm + first_b1).flatten())
    return picked.unflatten(0, (-1, index_bm.shape[1]))
