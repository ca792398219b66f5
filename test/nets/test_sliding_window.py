"""Sliding windows against a loop in NumPy; multi-scale by its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.core.windows import window_starts
from dense_perception.nets.sliding_window import SCALES, SlidingWindow, averaged_probabilities


class Position(nn.Module):
    """Logits that depend on the pixel and on where in the window it is."""

    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        rows = torch.arange(image_nchw.shape[-2], dtype=image_nchw.dtype)[:, None]
        return {"logits": torch.cat([image_nchw[:, :1] * rows, image_nchw[:, 1:] + rows], dim=1)}


@pytest.mark.parametrize(
    ("side", "window", "stride", "want"),
    [
        (512, 512, 512, [0]),
        (683, 512, 512, [0, 171]),
        (1024, 768, 512, [0, 256]),
        (2048, 768, 512, [0, 512, 1024, 1280]),
        (640, 480, 320, [0, 160]),
        (1024, 512, 512, [0, 512]),
    ],
)
def test_windows_cover_the_side(side: int, window: int, stride: int, want: list[int]) -> None:
    assert window_starts(side, window, stride) == want


def test_wrong_windows_are_named() -> None:
    with pytest.raises(InputError, match="window of 20 pixels is larger than the image's side"):
        window_starts(10, 20, 5)
    with pytest.raises(InputError, match="stride is 0, expected 1 to 8"):
        window_starts(10, 8, 0)


@torch.no_grad()
def test_overlaps_are_averaged() -> None:
    height, width, window, stride = 10, 13, 6, 4
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)).double()
    whole = SlidingWindow(Position(), height, width, window, stride).double()
    assert len(whole.corners) == 2 * 3
    got = whole(image)["logits"].numpy()
    for n in range(2):
        summed, count = np.zeros((3, height, width)), np.zeros((height, width))
        for top in (0, 4):
            for left in (0, 4, 7):
                for y in range(window):
                    for x in range(window):
                        pixel = image[n, :, top + y, left + x].numpy()
                        summed[:, top + y, left + x] += [pixel[0] * y, pixel[1] + y, pixel[2] + y]
                        count[top + y, left + x] += 1
        np.testing.assert_allclose(got[n], summed / count, atol=1e-12)
    with pytest.raises(InputError, match="image is 12x10, expected 13x10"):
        whole(image[..., :12])


class Pointwise(nn.Module):
    def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
        return {"logits": image_nchw * 2}


def scaled(image_nchw: Tensor, scale: float) -> Tensor:
    size = tuple(round(side * scale) for side in image_nchw.shape[-2:])
    return F.interpolate(image_nchw, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def test_views_of_a_pointwise_network() -> None:
    image = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    # At its own scale, flipped or not, a network without context gives the plain softmax.
    plain = torch.softmax(image * 2, dim=1)
    options = {"window": 8, "stride": 5, "flip": True}
    got = averaged_probabilities(Pointwise(), [image], (12, 16), **options)
    torch.testing.assert_close(got, plain)
    several = averaged_probabilities(
        Pointwise(), [scaled(image, scale) for scale in SCALES], (12, 16), **options
    )
    torch.testing.assert_close(several.sum(1), torch.ones(1, 12, 16))
    assert float((several - plain).abs().max()) > 0.01
    # A mirrored image gives the mirrored answer.
    mirrored = averaged_probabilities(
        Pointwise(), [scaled(image.flip(-1), scale) for scale in SCALES], (12, 16), **options
    )
    torch.testing.assert_close(mirrored.flip(-1), several, rtol=1e-4, atol=1e-5)
    # An image smaller than the window is enlarged.
    small = averaged_probabilities(Pointwise(), [image[..., :6, :]], (6, 16), **options)
    assert small.shape == (1, 3, 6, 16)


@torch.no_grad()
def test_a_small_view_is_enlarged_to_the_window_or_looked_at_as_it_is() -> None:
    """Segmenter's evaluation enlarges it, mmsegmentation's looks at what there is."""
    image = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(2))
    half = scaled(image, 0.5)
    blurred = F.interpolate(half, size=(12, 16), mode="bilinear", align_corners=False)
    got = averaged_probabilities(Pointwise(), [half], (12, 16), window=12, stride=6)
    torch.testing.assert_close(got, torch.softmax(blurred * 2, dim=1))
    seen: list[tuple[int, ...]] = []

    class Watched(Pointwise):
        def forward(self, image_nchw: Tensor) -> dict[str, Tensor]:
            seen.append(tuple(image_nchw.shape[-2:]))
            return super().forward(image_nchw)

    averaged_probabilities(Watched(), [half], (12, 16), window=12, stride=6, smaller=True)
    assert seen == [(6, 8)]


@torch.no_grad()
def test_logits_are_resized_to_the_wanted_size_before_the_softmax() -> None:
    image = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(3))
    got = averaged_probabilities(Pointwise(), [image], (30, 44), window=12, stride=6)
    logits = F.interpolate(image * 2, size=(30, 44), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got, torch.softmax(logits, dim=1))
