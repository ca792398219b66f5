"""Depth and intrinsics to organised point clouds in the optical frame (REP 103), and PLY files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.storage import atomic_write
from dense_perception.imaging.lenses import pixel_rays
from dense_perception.imaging.resize import resample

XYZRGB_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "rgb"],
        "formats": ["<f4", "<f4", "<f4", "<u4"],
        "offsets": [0, 4, 8, 12],
        "itemsize": 16,
    }
)
"""One XYZRGB point of 16 bytes; ``rgb`` holds 0x00RRGGBB, what PCL and RViz read as a float."""


def organised_xyz(depth_m: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """HxW ``float32`` planar depth to HxWx3 ``float32`` points in metres: x right, y down, z ahead.

    Pixels without depth (NaN) become points of three NaN.

    :raises InputError: if the intrinsics are of another size.
    """
    xyz = np.empty((*depth_m.shape, 3), np.float32)
    write_points(depth_m, intrinsics, xyz)
    return xyz


def organised_xyzrgb(
    depth_m: np.ndarray,
    intrinsics: Intrinsics,
    rgb_hwc: np.ndarray,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The same with colour: an HxW array of :data:`XYZRGB_DTYPE`, ready for a PointCloud2.

    ``rgb_hwc`` (``uint8``) of another size is resized to the depth map's. ``out``: an HxWx4
    ``float32`` array, contiguous and writable, that takes the points; the answer is a view of it.

    :raises InputError: if the intrinsics or ``out`` are of another size.
    """
    if out is None:
        out = np.empty((*depth_m.shape, 4), np.float32)
    write_points(depth_m, intrinsics, out, rgb_hwc=rgb_hwc)
    return out.view(XYZRGB_DTYPE)[..., 0]


def write_points(
    depth_m: np.ndarray,
    intrinsics: Intrinsics,
    out: np.ndarray,
    *,
    rgb_hwc: np.ndarray | None = None,
    labels_hw: np.ndarray | None = None,
) -> None:
    """Fill ``out``, HxWxC contiguous ``float32``, with x, y, z and, where given, colour and label.

    The colour is 0x00RRGGBB and the label a ``uint32``, both as the bits of a float. ``labels_hw``
    is an unsigned map of the depth map's size; ``rgb_hwc`` of another size is resized.

    :raises InputError: if the intrinsics, the labels or ``out`` are of another size.
    """
    x_rays, y_rays = _checked_rays(depth_m, intrinsics)
    height, width = depth_m.shape
    planes = [depth_m * x_rays, depth_m * y_rays, depth_m]
    if intrinsics.lens is not None:  # a pixel that no ray reaches has no point
        planes[2] = np.where(np.isnan(x_rays), np.float32(np.nan), depth_m)
    if rgb_hwc is not None:
        planes.append(_packed_colors(rgb_hwc, width, height))
    if labels_hw is not None:
        if labels_hw.shape != depth_m.shape:
            raise InputError(
                f"labels are of shape {labels_hw.shape}, expected the depth map's {depth_m.shape}"
            )
        planes.append(labels_hw.astype(np.uint32).view(np.float32))
    shape = (height, width, len(planes))
    if out.shape != shape or out.dtype != np.float32:
        raise InputError(f"out is {out.dtype} of shape {out.shape}, expected float32 of {shape}")
    # OpenCV interleaves the planes in one pass; NumPy's strided stores take half as long again.
    cv2.merge(planes, dst=out)


def _packed_colors(rgb_hwc: np.ndarray, width: int, height: int) -> np.ndarray:
    """0x00RRGGBB of each pixel of the resized picture, as the bits of HxW ``float32``."""
    rgb_hwc = resample(rgb_hwc, width, height)
    bgra = cv2.cvtColor(rgb_hwc, cv2.COLOR_RGB2BGRA)
    # With the alpha byte set, the colour read as a float is NaN, and readers drop the point.
    packed = bgra.view("<u4")[..., 0]
    np.bitwise_and(packed, np.uint32(0xFFFFFF), out=packed)
    return packed.view(np.float32)


def write_ply(
    path: Path, xyz_hwc: np.ndarray, rgb_hwc: np.ndarray | None = None, *, overwrite: bool = False
) -> int:
    """Write the finite points as binary little-endian PLY; returns how many there are.

    ``xyz_hwc``: any shape ending in 3, metres; ``rgb_hwc``: ``uint8`` of the same shape.

    :raises InputError: if the shapes differ, or the file exists and ``overwrite`` is false.
    """
    xyz = np.asarray(xyz_hwc, np.float32).reshape(-1, 3)
    if rgb_hwc is not None and rgb_hwc.size != xyz.size:
        raise InputError(f"got {rgb_hwc.shape} colours for {xyz_hwc.shape} points")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already: choose another name or allow overwriting")
    valid = np.isfinite(xyz).all(axis=1)
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if rgb_hwc is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    vertices = np.empty(int(valid.sum()), fields)
    for axis, name in enumerate("xyz"):
        vertices[name] = xyz[valid, axis]
    if rgb_hwc is not None:
        rgb = rgb_hwc.reshape(-1, 3)[valid]
        for channel, name in enumerate(("red", "green", "blue")):
            vertices[name] = rgb[:, channel]
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in fields]
    header = "\n".join([*lines, "end_header", ""]).encode()
    with atomic_write(path) as stream:
        stream.write(header)
        stream.write(vertices.tobytes())
    return len(vertices)


def _checked_rays(depth_m: np.ndarray, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    if depth_m.shape != (intrinsics.height, intrinsics.width):
        raise InputError(
            f"the depth map has shape {depth_m.shape}, the intrinsics are for "
            f"{intrinsics.width}x{intrinsics.height}: scale them with Intrinsics.resized"
        )
    return pixel_rays(intrinsics)
