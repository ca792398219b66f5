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
from dense_perception.core.windows import at_least, window_starts

# The scales of the paper's multi-scale evaluation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class SlidingWindow(nn.Module):
    """A segmentation network over a fixed larger image: (N, 3, height, width) to its logits.

    Fixed sizes make a graph without control flow; the windows of all N images are one batch.

    :param smaller: a side below the window is looked at as it is, as mmsegmentation does, for
        networks that take other sizes than the window's; otherwise it is refused.
    """

    needs_focal = False
    depth_kind = None

    def __init__(
        self,
        network: nn.Module,
        height: int,
        width: int,
        window: int,
        stride: int,
        *,
        smaller: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.size_hw = (height, width)
        self.window_hw = (window, window)
        if smaller:
            self.window_hw = (min(window, height), min(window, width))
        starts = [
            window_starts(side, span, min(stride, span))
            for side, span in zip(self.size_hw, self.window_hw, strict=True)
        ]
        self.corners = [(top, left) for top in starts[0] for left in starts[1]]
        count_hw = torch.zeros(height, width)
        for top, left in self.corners:
            count_hw[top : top + self.window_hw[0], left : left + self.window_hw[1]] += 1
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
        (rows, columns), (height, width) = self.window_hw, self.size_hw
        windows = [image_nchw[..., y : y + rows, x : x + columns] for y, x in self.corners]
        together = self.network(torch.cat(windows))["logits"]
        # A reshape rather than a chunk, which would fix the number of images at export.
        logits = together.reshape(len(windows), -1, *together.shape[1:]).unbind()
        summed = torch.zeros((), dtype=image_nchw.dtype, device=image_nchw.device)
        for (y, x), part in zip(self.corners, logits, strict=True):
            summed = summed + F.pad(part, (x, width - x - columns, y, height - y - rows))
        return {"logits": summed * self.share_hw}


@torch.no_grad()
def averaged_probabilities(
    network: nn.Module,
    views: Sequence[Tensor],
    size_hw: tuple[int, int],
    *,
    window: int = 0,
    stride: int = 0,
    smaller: bool = False,
    flip: bool = False,
    mode: str = "bilinear",
) -> Tensor:
    """Class probabilities (N, classes, *size_hw), averaged over views and their mirror images.

    Each view (N, 3, H, W) is the picture at one scale. One whose short side is below the window is
    enlarged to it, as Segmenter's authors do it, unless ``smaller``. A window of 0 is the whole
    view. The averaged logits are resized by ``mode`` before the softmax.
    """
    total = torch.zeros((), dtype=views[0].dtype, device=views[0].device)
    for view in views:
        enlarged = view
        if window and not smaller:
            height, width = view.shape[-2:]
            size = at_least(width, height, window)
            if size != (width, height):
                enlarged = _resized(view, (size[1], size[0]))
        whole = network
        if window:
            rows, columns = enlarged.shape[-2:]
            whole = SlidingWindow(network, rows, columns, window, stride, smaller=smaller)
            whole = whole.to(enlarged)
        for mirrored in (False, True) if flip else (False,):
            logits = whole(enlarged.flip(-1) if mirrored else enlarged)["logits"]
            logits = _resized(logits, size_hw, mode)
            total = total + torch.softmax(logits.flip(-1) if mirrored else logits, dim=1)
    return total / (len(views) * (1 + flip))


def _resized(x_nchw: Tensor, size_hw: tuple[int, int], mode: str = "bilinear") -> Tensor:
    return F.interpolate(x_nchw, size=size_hw, mode=mode, align_corners=False)
