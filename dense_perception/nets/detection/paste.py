"""Masks of things from their boxes onto the image: He 2017, section 3.1, without loops or cuts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# So many masks are at the image's size at once.
_AT_ONCE = 10


def paste(masks_nmss: Tensor, boxes_nm4: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(N, M, S, S), 0 to 1, within (N, M, 4) boxes to (N, M, H, W): bilinear, zero outside.

    The centre of pixel i lies at (i + 0.5 - low) / (high - low) of its box. Both directions are
    products with the shares that a pixel has in the mask's rows or columns.
    """
    side = masks_nmss.shape[-1]
    wide = torch.promote_types(boxes_nm4.dtype, torch.float32)
    shares = []
    for axis, length in ((0, size_hw[1]), (1, size_hw[0])):
        low, high = boxes_nm4[..., axis].to(wide), boxes_nm4[..., axis + 2].to(wide)
        centre = torch.arange(length, dtype=wide, device=boxes_nm4.device) + 0.5
        extent = (high - low).clamp(min=1e-6)
        place = (centre - low.unsqueeze(-1)) / extent.unsqueeze(-1) * side - 0.5
        pixel = torch.arange(side, dtype=wide, device=boxes_nm4.device)
        hat = (1 - (place.unsqueeze(-1) - pixel).abs()).clamp(min=0)
        shares.append(hat.to(masks_nmss.dtype))
    columns_nmws, rows_nmhs = shares
    return rows_nmhs @ (masks_nmss @ columns_nmws.transpose(-1, -2))


def paste_all(
    masks_nmss: Tensor, boxes_nm4: Tensor, used_nm: Tensor, size_hw: Sequence[int], threshold: float
) -> tuple[Tensor, Tensor]:
    """Ids and masks of all things at the image's size.

    Ids (N, H, W) int64: 0 none, k where row k - 1 is the first one above ``threshold``. Masks
    (N, M, H, W) of 0 to 1 are hundreds of megabytes for large images; for evaluation.
    """
    rows = masks_nmss.shape[1]
    found, pasted = None, []
    for first in range(0, rows, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        pasted_nkhw = paste(masks_nmss[:, part], boxes_nm4[:, part], size_hw)
        pasted.append(pasted_nkhw)
        count = pasted_nkhw.shape[1]
        number = torch.arange(first + 1, first + count + 1, device=pasted_nkhw.device)
        is_on = (pasted_nkhw >= threshold) & used_nm[:, part].unsqueeze(-1).unsqueeze(-1)
        # The lowest number wins; with zero for none, the highest of what is left of a large one.
        left = is_on.to(pasted_nkhw.dtype) * (rows + 1 - number).to(pasted_nkhw.dtype).reshape(
            -1, 1, 1
        )
        most_nhw = left.amax(dim=1)
        found = most_nhw if found is None else torch.maximum(found, most_nhw)
    assert found is not None
    ids_nhw = torch.where(found > 0, rows + 1 - found, torch.zeros_like(found))
    return ids_nhw.to(torch.int64), torch.cat(pasted, dim=1)
