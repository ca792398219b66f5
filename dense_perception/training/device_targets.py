"""What :mod:`dense_perception.data.targets` does, in batches of tensors on the training device.

Maps are float32 (N, H, W). Filters add shifted maps: a GPU's convolutions may round to 10 bits, of
which differences of inverse depths leave nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from dense_perception.core.labels import VOID
from dense_perception.data.targets import (
    CORNER_GAIN,
    CORNER_SIGMA,
    EDGE_GAIN,
    EDGE_SIGMA,
    RADIUS,
    ROUGH,
)

_SMOOTH, _FIRST, _SECOND = (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0), (1.0, -2.0, 1.0)
_SOBEL = 0.25


def normals_from_depth(depth_nhw: Tensor, camera_n4: Tensor) -> Tensor:
    """(N, H, W, 3) unit normals towards the cameras (fx, fy, cx, cy); NaN where unknown."""
    side = 2 * RADIUS + 1
    across = [float(at) for at in range(-RADIUS, RADIUS + 1)]
    mean_of, slope_of = [1 / side] * side, [at / sum(x * x for x in across) for at in across]
    valid = depth_nhw.isfinite() & (depth_nhw > 0)
    inverse = torch.where(valid, 1 / torch.where(valid, depth_nhw, 1), 0)
    a = _filtered(inverse, slope_of, mean_of, "constant")
    b = _filtered(inverse, mean_of, slope_of, "constant")
    mean = _filtered(inverse, mean_of, mean_of, "constant")
    square = _filtered(inverse * inverse, mean_of, mean_of, "constant")
    spread = sum(at * at for at in across) / side
    residual = square - mean * mean - (a * a + b * b) * spread
    invalid = F.pad((~valid).float(), (RADIUS,) * 4, value=1.0)
    known = F.max_pool2d(invalid[:, None], side, stride=1)[:, 0] == 0
    known &= residual <= (ROUGH * mean) ** 2
    height, width = depth_nhw.shape[1:]
    fx, fy, cx, cy = (entry[:, None, None] for entry in camera_n4.unbind(1))
    u = torch.arange(width, device=depth_nhw.device) - cx
    v = torch.arange(height, device=depth_nhw.device)[:, None] - cy
    normals = torch.stack([fx * a, fy * b, mean - a * u - b * v], dim=-1)
    length = normals.square().sum(-1).sqrt()
    known &= length > 0
    return normals * torch.where(known, -1 / length, torch.nan)[..., None]


def turned(normals_nhw3: Tensor, turn_n33: Tensor) -> Tensor:
    """Vectors in the axes of a camera that was turned and mirrored by these matrices."""
    return (turn_n33[:, None, None] * normals_nhw3[..., None, :]).sum(-1)


def reshading(normals_nhw3: Tensor, camera_n4: Tensor) -> Tensor:
    """Lambert's cosine for a lamp at the camera, 0 to 1; NaN as in the normals."""
    height, width = normals_nhw3.shape[1:3]
    fx, fy, cx, cy = (entry[:, None, None] for entry in camera_n4.unbind(1))
    x = (torch.arange(width, device=fx.device) - cx) / fx
    y = (torch.arange(height, device=fx.device)[:, None] - cy) / fy
    along = normals_nhw3[..., 0] * x + normals_nhw3[..., 1] * y + normals_nhw3[..., 2]
    return (-along / (x * x + y * y + 1).sqrt()).clamp(0, 1)


def texture_edges(rgb_nchw: Tensor) -> Tensor:
    """Gradient magnitude of the blurred gray picture, 0 to 1, of levels 0 to 255."""
    gray = _blurred_gray(rgb_nchw, EDGE_SIGMA)
    dx, dy = _filtered(gray, _FIRST, _SMOOTH) * _SOBEL, _filtered(gray, _SMOOTH, _FIRST) * _SOBEL
    return (EDGE_GAIN * (dx * dx + dy * dy).sqrt()).clamp(max=1)


def corner_strength(rgb_nchw: Tensor) -> Tensor:
    """Root of the Hessian's determinant where positive, 0 to 1, of levels 0 to 255."""
    gray = _blurred_gray(rgb_nchw, CORNER_SIGMA)
    xx = _filtered(gray, _SECOND, _SMOOTH) * _SOBEL
    yy = _filtered(gray, _SMOOTH, _SECOND) * _SOBEL
    xy = _filtered(gray, _FIRST, _FIRST) * _SOBEL
    return (CORNER_GAIN * (xx * yy - xy * xy).clamp(min=0).sqrt()).clamp(max=1)


def class_targets(labels_nhw: Tensor) -> Tensor:
    """Labels (0 is none) as the network counts them: from 0, VOID for none; uint8."""
    return torch.where(labels_nhw == 0, VOID, labels_nhw - 1).to(torch.uint8)


def _blurred_gray(rgb_nchw: Tensor, sigma: float) -> Tensor:
    red, green, blue = rgb_nchw.unbind(1)
    gray = (0.299 * red + 0.587 * green + 0.114 * blue).round() / 255
    # The size that OpenCV takes for pictures of floats.
    kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma)[:, 0].tolist()
    return _filtered(gray, kernel, kernel)


def _filtered(
    map_nhw: Tensor, along_x: Sequence[float], along_y: Sequence[float], border: str = "reflect"
) -> Tensor:
    reach = len(along_x) // 2
    padded = F.pad(map_nhw[:, None], (reach,) * 4, mode=border)[:, 0]
    height, width = map_nhw.shape[1:]
    rows = _sum([padded.narrow(1, k, height) * w for k, w in enumerate(along_y) if w])
    return _sum([rows.narrow(2, k, width) * w for k, w in enumerate(along_x) if w])


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
