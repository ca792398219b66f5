"""Where one frame is seen from another, at a time: the geometry of /tf, from its messages.

tf2_ros would do in a node, but it brings a thread and a compiled extension, and the ROS 2 wheels do
not have it; the geometry is a page. Messages are recognised by their fields, so this module needs
neither ROS nor rosbags.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import Header

_KEPT_S = 10.0
# A transform is taken this far beyond its newest stamp: nothing waits for the next one.
_MOST_EXTRAPOLATION_S = 0.5
_LONGEST_CHAIN = 64
_MOST_FRAMES = 1000


class Vector(Protocol):
    """``geometry_msgs/Vector3``."""

    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def z(self) -> float: ...


class Quaternion(Vector, Protocol):
    """``geometry_msgs/Quaternion``."""

    @property
    def w(self) -> float: ...


class Motion(Protocol):
    """``geometry_msgs/Transform``."""

    @property
    def rotation(self) -> Quaternion: ...
    @property
    def translation(self) -> Vector: ...


class StampedTransform(Protocol):
    """``geometry_msgs/TransformStamped``."""

    @property
    def header(self) -> Header: ...
    @property
    def child_frame_id(self) -> str: ...
    @property
    def transform(self) -> Motion: ...


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """``p_parent = rotation @ p_child + translation``; (3, 3) and (3,) float64, metres."""

    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def from_quaternion(cls, xyzw: tuple[float, ...], translation: tuple[float, ...]) -> Transform:
        """
        :raises InputError: for numbers that are not finite, or a quaternion of length zero.
        """
        q = np.array(xyzw, np.float64)
        length = float(np.linalg.norm(q))
        if not (np.isfinite([*xyzw, *translation]).all() and length > 1e-6):
            raise InputError(f"the quaternion is {xyzw} and the translation {translation}")
        x, y, z, w = q / length
        rotation = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        return cls(rotation, np.array(translation, np.float64))

    def apply(self, xyz_n3: np.ndarray) -> np.ndarray:
        """(N, 3) points of the child frame, in the parent frame."""
        points: np.ndarray = xyz_n3 @ self.rotation.T + self.translation
        return points

    def after(self, inner: Transform) -> Transform:
        """First ``inner``, then this one."""
        return Transform(
            self.rotation @ inner.rotation, self.rotation @ inner.translation + self.translation
        )

    def quaternion(self) -> np.ndarray:
        """The rotation as x, y, z, w, float64 of length one."""
        return quaternion_of(self.rotation)

    def inverse(self) -> Transform:
        return Transform(self.rotation.T, -self.rotation.T @ self.translation)


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """x, y, z, w of a (3, 3) rotation, float64 of length one."""
    # The largest of four squares is far from zero, so the division by its root is safe.
    trace = np.trace(rotation)
    squares = np.array([*(1 + 2 * np.diag(rotation) - trace), 1 + trace])
    products = np.empty((4, 4))
    products[:3, :3] = rotation + rotation.T
    products[:3, 3] = products[3, :3] = [
        rotation[2, 1] - rotation[1, 2],
        rotation[0, 2] - rotation[2, 0],
        rotation[1, 0] - rotation[0, 1],
    ]
    np.fill_diagonal(products, squares)
    quaternion = products[int(np.argmax(squares))]
    if quaternion[3] < 0:  # of the two that mean the same
        quaternion = -quaternion
    return np.asarray(quaternion / np.linalg.norm(quaternion))


class _Pose(NamedTuple):
    """What one transform message said."""

    time_s: float
    xyzw: tuple[float, ...]
    translation: tuple[float, ...]


class _Edge:
    """The transforms from one frame to its parent over the last seconds, or a static one.

    Added to by the executor's thread and read by the worker's.
    """

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.static: Transform | None = None
        self.turn = 0
        self._poses: deque[_Pose] = deque()

    def add(self, time_s: float, xyzw: tuple[float, ...], translation: tuple[float, ...]) -> None:
        if self._poses and time_s <= self._poses[-1].time_s:
            if time_s > self._poses[-1].time_s - _KEPT_S:
                return  # late or twice
            self._poses.clear()  # the clock went back: a bag starts again
        self._poses.append(_Pose(time_s, xyzw, translation))
        while self._poses[0].time_s < time_s - _KEPT_S:
            self._poses.popleft()

    def at(self, time_s: float) -> Transform | None:
        """Interpolated between its neighbours; ``None`` too far from all of them."""
        if self.static is not None:
            return self.static
        poses = list(self._poses)  # one step: the other thread may go on adding
        if not poses:
            return None
        index = bisect_left(poses, time_s, key=lambda pose: pose.time_s)
        if index in (0, len(poses)):
            nearest = poses[min(index, len(poses) - 1)]
            if abs(nearest.time_s - time_s) > _MOST_EXTRAPOLATION_S:
                return None
            return Transform.from_quaternion(nearest.xyzw, nearest.translation)
        before, after = poses[index - 1], poses[index]
        share = (time_s - before.time_s) / (after.time_s - before.time_s)
        first, second = np.array(before.xyzw), np.array(after.xyzw)
        if first @ second < 0:  # the same rotation, the short way round
            second = -second
        # Between two messages of a robot the straight line is as good as the arc.
        blend = tuple((1 - share) * first + share * second)
        way = (1 - share) * np.array(before.translation) + share * np.array(after.translation)
        return Transform.from_quaternion(blend, tuple(way))


class TransformBuffer:
    """The tree of frames, from transform messages."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self._turn = 0

    def add(self, stamped: StampedTransform, *, static: bool) -> None:
        """Take a transform into account; one that makes no sense is left out."""
        child = stamped.child_frame_id.lstrip("/")
        parent = stamped.header.frame_id.lstrip("/")
        q, t = stamped.transform.rotation, stamped.transform.translation
        xyzw, translation = (q.x, q.y, q.z, q.w), (t.x, t.y, t.z)
        try:
            transform = Transform.from_quaternion(xyzw, translation)
        except InputError:
            return
        if not child or not parent or child == parent:
            return
        edge = self._edges.get(child)
        if edge is None and not self._has_room():
            return
        if edge is None or edge.parent != parent:
            edge = self._edges[child] = _Edge(parent)
        self._turn += 1
        edge.turn = self._turn
        if static:
            edge.static = transform
        else:
            stamp = stamped.header.stamp
            edge.add(stamp.sec + stamp.nanosec / 1e9, xyzw, translation)

    def _has_room(self) -> bool:
        """Forget the moving frame that was silent longest; a robot's own never are the oldest."""
        if len(self._edges) < _MOST_FRAMES:
            return True
        moving = [(edge.turn, child) for child, edge in self._edges.items() if edge.static is None]
        if moving:
            del self._edges[min(moving)[1]]
        return bool(moving)

    def lookup(self, target: str, source: str, time_s: float) -> Transform:
        """Takes points of the frame ``source`` to the frame ``target`` at ``time_s``.

        :raises InputError: if they are not connected at that time; the message names the gap.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        up, down = self._to_root(source, time_s), self._to_root(target, time_s)
        for frame, transform in up.items():
            if frame in down:
                return down[frame].inverse().after(transform)
        raise InputError(
            f"no transform from {source!r} to {target!r} at {time_s:.3f} s, expected /tf to "
            f"connect them: {source!r} leads to {list(up)[-1]!r}, {target!r} to "
            f"{list(down)[-1]!r}: start the robot's state publisher or a static transform publisher"
        )

    def _to_root(self, frame: str, time_s: float) -> dict[str, Transform]:
        """Each ancestor, nearest first, with the transform from ``frame`` to it."""
        chain = {frame: Transform(np.eye(3), np.zeros(3))}
        while len(chain) < _LONGEST_CHAIN:
            edge = self._edges.get(frame)
            step = edge.at(time_s) if edge is not None else None
            if edge is None or step is None or edge.parent in chain:
                break
            chain[edge.parent] = step.after(chain[frame])
            frame = edge.parent
        return chain
