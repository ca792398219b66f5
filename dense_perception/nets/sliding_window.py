"""Looking at an image larger than the network's window (Strudel 2021, section 4.1).

Square windows in overlapping positions go through the network as one batch; where they overlap,
their scores are averaged before any softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError

# The scales of the paper's multi-scale evaluation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along a side; the last window ends with the image.

    :raises InputError: if the window is larger than the side, or the stride is not in 1 to window.
    """
    if window > side:
        raise InputError(
            f"the window of {window} pixels is larger than the image's side of {side}: enlarge "
            "the image first"
        )
    if not 1 <= stride <= window:
        raise InputError(f"stride is {stride}, expected 1 to {window}")
    return [start for start in range(0, side, stride) if start < side - window] + [side - window]


class SlidingWindow(nn.Module):
    """A segmentation network over a fixed larger image: (N, 3, height, width) to its logits.

    Fixed sizes make a graph without control flow; the windows of all N images are one batch.
    """

    needs_focal = False
    depth_kind = None

    def __init__(
        self, network: nn.Module, height: int, width: int, window: int, stride: int
    ) -> None:
        super().__init__()
        self.network = network
        self.size_hw = (height, width)
        self.window = window
        self.corners = [
            (top, left)
            for top in window_starts(height, window, stride)
            for left in window_starts(width, window, stride)
        ]
        count_hw = torch.zeros(height, width)
        for top, left in self.corners:
            count_hw[top : top + window, left : left + window] += 1
        self.register_buffer("share_hw", 1 / count_hw, persistent=False)
        self.share_hw: Tensor

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """``{"logits": (N, classes, height, width)}``.

        :raises InputError: if the image has another size.
        """
        if tuple(image_nchw.shape[-2:]) != self.size_hw:
            raise InputError(
                f"image is {image_nchw.shape[-1]}x{image_nchw.shape[-2]}, expected "
                f"{self.size_hw[1]}x{self.size_hw[0]}"
            )
        side, (height, width) = self.window, self.size_hw
        windows = [image_nchw[..., y : y + side, x : x + side] for y, x in self.corners]
        together = self.network(torch.cat(windows))["logits"]
        # A reshape rather than a chunk, which would fix the number of images at export.
        logits = together.reshape(len(windows), -1, *together.shape[1:]).unbind()
        summed = torch.zeros((), dtype=image_nchw.dtype, device=image_nchw.device)
        for (y, x), part in zip(self.corners, logits, strict=True):
            summed = summed + F.pad(part, (x, width - x - side, y, height - y - side))
        return {"logits": summed * self.share_hw}


@torch.no_grad()
def multi_scale_probabilities(
    network: nn.Module,
    image_nchw: Tensor,
    window: int,
    stride: int,
    *,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    size_hw: tuple[int, int] | None = None,
) -> Tensor:
    """Class probabilities (N, classes, *size_hw), averaged over scales and mirror images.

    A scaled image whose short side is below the window is enlarged to it afterwards, as the authors
    do it: half the size and back is a view of its own, less sharp. The averaged logits are resized
    to the original size before the softmax. An evaluation option: it costs a dozen forward passes
    and more.
    """
    height, width = image_nchw.shape[-2:]
    total = torch.zeros((), dtype=image_nchw.dtype, device=image_nchw.device)
    views = 0
    for scale in scales:
        scaled = _enlarged(
            _resized(image_nchw, round(height * scale), round(width * scale)), window
        )
        rows, columns = scaled.shape[-2:]
        whole = SlidingWindow(network, rows, columns, window, stride).to(image_nchw)
        for mirrored in (False, True) if flip else (False,):
            logits = whole(scaled.flip(-1) if mirrored else scaled)["logits"]
            logits = _resized(logits, *(size_hw or (height, width)))
            total = total + torch.softmax(logits.flip(-1) if mirrored else logits, dim=1)
            views += 1
    return total / views


def _enlarged(image_nchw: Tensor, window: int) -> Tensor:
    """The short side at least the window, the aspect kept."""
    height, width = image_nchw.shape[-2:]
    short = min(height, width)
    if short >= window:
        return image_nchw
    return _resized(image_nchw, height * window // short, width * window // short)


def _resized(x_nchw: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x_nchw, size=(height, width), mode="bilinear", align_corners=False)
