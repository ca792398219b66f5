"""The truth of one frame as it is compared with: made once, for all contestants."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from dense_perception.core.camera import Intrinsics
from dense_perception.data.doubts import median_depth_m
from dense_perception.data.targets import (
    corner_strength,
    normals_from_depth,
    reshading,
    texture_edges,
)
from dense_perception.evaluation.flow import correspondence
from dense_perception.evaluation.true_things import TrueThings, true_things
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.imaging.transforms import Transform
from dense_perception.metrics.depth import TrueDepth
from dense_perception.metrics.protocols import Protocol
from dense_perception.metrics.temporal import Correspondence, moved_by_pose

_LONGEST_GAP_NS = 500_000_000  # further apart, two frames are no sequence
_LOOKED_AT = 320
_COARSE = 160
SHAPED, FOLLOWED = 4, 8
"""Of so many successive frames one is judged by what is dear; see :class:`Judge`."""


class Judge:
    """What is true of a frame, and what it is like; maps are made when they are first wanted.

    ``true_m``: (H, W) float32 metres that count by the protocol, NaN elsewhere; None without depth.
    ``before`` judges the frame before in the same sequence; None where one begins. ``number``
    counts the frames of a sequence from 0.
    """

    def __init__(self, truth: TruthFrame, protocol: Protocol, last: Judge | None = None) -> None:
        """
        :param last: of the frame that was read before, whether this one follows it or not.
        """
        self.truth, self.protocol = truth, protocol
        self.true_m: np.ndarray | None = None
        self.is_cut = False
        if truth.depth_m is not None:
            counted = protocol.truth(truth.depth_m)
            self.is_cut = not np.isfinite(counted).any()
            self.true_m = None if self.is_cut else counted
        self._with_void: dict[frozenset[int], TrueThings] = {}
        self.before = last if last is not None and self._follows(last) else None
        self.number: int = 0 if self.before is None else self.before.number + 1
        if last is not None:
            last.before = None  # else every frame of a recording would stay in memory

    @property
    def is_shaped(self) -> bool:
        """Whether answers are judged by surfaces, slices and further maps too: one of
        :data:`SHAPED` successive frames, which show nearly the same. The frame decides, not what
        was answered, so that all contestants are judged by the same ones."""
        return self.number % SHAPED == 0

    @property
    def is_followed(self) -> bool:
        """Whether surfaces are followed from the frame before: of :data:`FOLLOWED` one."""
        return self.before is not None and self.number % FOLLOWED == 1

    @cached_property
    def camera(self) -> Intrinsics | None:
        """That of the true depth; None where the frame is not calibrated."""
        given, depth_m = self.truth.frame.intrinsics, self.truth.depth_m
        if given is None or depth_m is None:
            return None
        return given.resized(depth_m.shape[1], depth_m.shape[0])

    @cached_property
    def true_depth(self) -> TrueDepth:
        """``true_m``, prepared for comparisons."""
        assert self.true_m is not None
        return TrueDepth(self.true_m)

    @cached_property
    def coarse(self) -> tuple[TrueDepth, int]:
        """``true_m`` of every n-th row and column, about 160 columns, for what is judged in every
        frame and knows no detail; and n."""
        assert self.true_m is not None
        step = max(1, round(max(self.true_m.shape) / _COARSE))
        return TrueDepth(self.true_m[::step, ::step]), step

    @cached_property
    def median_m(self) -> float:
        """The median of the frame's depth, whether it counts or not; 0 without any."""
        if self.truth.depth_m is None:
            return 0.0
        if self.truth.depth_m is self.true_m:
            return self.true_depth.median_m
        return median_depth_m(self.truth.depth_m)

    @cached_property
    def normals_hwc(self) -> np.ndarray | None:
        """Of the true depth: (H, W, 3) float32, NaN where unknown; None without calibration."""
        if self.true_m is None or self.camera is None:
            return None
        return normals_from_depth(self.true_m, self.camera)

    def gray(self, name: str) -> np.ndarray | None:
        """Edges, keypoints or reshading, (H, W) float32 from 0 to 1; None where it is unknown."""
        if name == "reshading":
            if self.normals_hwc is None or self.camera is None:
                return None
            return reshading(self.normals_hwc, self.camera)
        return self._edges if name == "edges" else self._keypoints

    @cached_property
    def _edges(self) -> np.ndarray:
        return texture_edges(self.truth.frame.rgb_hwc)

    @cached_property
    def _keypoints(self) -> np.ndarray:
        return corner_strength(self.truth.frame.rgb_hwc)

    @cached_property
    def things(self) -> TrueThings | None:
        """The numbered things in view; None where they are not numbered."""
        truth = self.truth
        if truth.instances_hw is None:
            return None
        return true_things(truth.instances_hw, truth.instance_labels)

    def things_with_void(self, classes: frozenset[int]) -> TrueThings | None:
        """As ``things``, with the pixels of ``classes`` (from 0 on) that have no number as void."""
        if self.things is None or self.truth.labels_hw is None:
            return self.things
        if classes not in self._with_void:
            truth = self.truth
            assert truth.instances_hw is not None
            self._with_void[classes] = true_things(
                truth.instances_hw, truth.instance_labels, truth.labels_hw, classes
            )
        return self._with_void[classes]

    @cached_property
    def looks(self) -> dict[str, str | float]:
        """What the frame is like, for slices: mean brightness 0 to 1, and ``sharpness``, the
        variance of the Laplacian of a gray copy of about 320 pixels, which blur takes away."""
        rgb_hwc = self.truth.frame.rgb_hwc
        step = max(1, max(rgb_hwc.shape) // _LOOKED_AT)
        # Gray before columns: every n-th triple of bytes takes longer to copy than all to add up.
        rows = cv2.cvtColor(np.ascontiguousarray(rgb_hwc[::step]), cv2.COLOR_RGB2GRAY)
        gray = np.ascontiguousarray(rows[:, ::step])
        deviation = float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0])
        brightness = cv2.mean(gray)[0] / 255
        return {"brightness": round(brightness, 4), "sharpness": round(deviation**2, 2)}

    def _follows(self, before: Judge) -> bool:
        """Whether the frame is the next one of the same sequence, with depth of the same size."""
        gap_ns = self.truth.frame.stamp_ns - before.truth.frame.stamp_ns
        return (
            self.truth.recording == before.truth.recording
            and 0 < gap_ns <= _LONGEST_GAP_NS
            and self.true_m is not None
            and before.true_m is not None
            and self.true_m.shape == before.true_m.shape
        )

    def same_as(self, before: Judge) -> Correspondence:
        """Which pixels show what the frame before shows: by poses where both have one, else by
        optical flow."""
        assert self.true_m is not None
        assert before.true_m is not None
        poses = [_pose(each.truth.camera_7) for each in (self, before)]
        if poses[0] is not None and poses[1] is not None and self.camera is not None:
            motion = poses[1].inverse().after(poses[0])
            k = self.camera.matrix()
            rigid = np.column_stack([motion.rotation, motion.translation])
            wider = np.eye(4)
            wider[:3, :3] = np.linalg.inv(k)
            return moved_by_pose(self.true_m, before.true_m, k @ rigid @ wider)
        height, width = self.true_m.shape
        return correspondence(self.truth.frame.rgb_hwc, before.truth.frame.rgb_hwc, height, width)


def _pose(camera_7: np.ndarray | None) -> Transform | None:
    if camera_7 is None or not np.isfinite(camera_7).all():
        return None
    x, y, z, *quaternion = (float(each) for each in camera_7)
    return Transform.from_quaternion(tuple(quaternion), (x, y, z))
