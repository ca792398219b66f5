"""Identities of things from frame to frame, by ByteTrack (Zhang 2022, arXiv:2110.06864).

The package ``trackers`` has it. Boxes are matched with where Kalman filters expect them, those with
good scores first. What a thing looks like plays no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.prediction import Instances

MOST_IDS = 65535
"""Identities begin again after so many: they are pixels of 16 bits."""
_RATE_HZ = 10.0  # what the filters' steps are scaled to; frames may come at any rate
_LEAST_OVERLAP = 0.1
_JUMP_S = 1.0
_LEAST_STEP_S = 1e-6


class Tracker:
    """Follows the things of one camera.

    :param least_score: what a thing needs to be followed.
    :param patience_s: how long it may be hidden and is still the same.
    :param warn: gets a sentence each time that images do not follow one another in time.
    :raises InputError: if the package ``trackers`` is not installed.
    """

    def __init__(
        self, least_score: float, patience_s: float, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._warn = warn
        supervision, trackers = _library()
        self._detections: Any = supervision.Detections
        self._tracker: Any = trackers.ByteTrackTracker(
            # The library counts in frames of a thirtieth of a second.
            lost_track_buffer=max(1, round(30 * patience_s)),
            frame_rate=_RATE_HZ,
            track_activation_threshold=least_score,
            high_conf_det_threshold=least_score,
            minimum_consecutive_frames=1,
            minimum_iou_threshold=_LEAST_OVERLAP,
        )
        self._last_s = self._given_s = float("-inf")

    def adjust(self, least_score: float, patience_s: float) -> None:
        """Follow by other settings from now on; things that are known keep their identity."""
        self._tracker.track_activation_threshold = least_score
        self._tracker.high_conf_det_threshold = least_score
        self._tracker.maximum_time_without_update = patience_s

    def follow(self, found: Instances, stamp_ns: int) -> Instances:
        """The things that are known by now, with their identities from 1 in ``track_ids_n``.

        A thing is known from the second frame that it is found in. Where time goes back by a second
        or more, as when a recording begins again, all begins anew. No thing of an image is known
        that is older by less, and images of the same stamp follow at once. Each is warned of.
        """
        seconds = stamp_ns / 1e9
        back_s = self._last_s - seconds
        if back_s >= _JUMP_S:
            self._warn(
                "the time of the images went back by a second or more: identities begin anew"
            )
            self._tracker.reset()
            self._given_s = float("-inf")
        elif back_s > 0:
            self._warn(
                "an image is older than the one before it: its things are left out, since "
                "identities need images in the order of their stamps"
            )
            return _known(found, np.zeros(len(found), np.int64))
        elif back_s == 0:
            self._warn(
                "an image has the same stamp as the one before: a thing that is hidden meanwhile "
                "is waited for longer than track_patience_s; let the driver stamp each image"
            )
        self._last_s = seconds
        # The library takes no time twice.
        self._given_s = max(seconds, self._given_s + _LEAST_STEP_S)
        rows = np.arange(len(found))
        tracked = self._tracker.update(
            self._detections(
                xyxy=found.boxes_n4.astype(np.float64),
                confidence=found.scores_n.astype(np.float64),
                class_id=found.classes_n.astype(np.int64),
                data={"row": rows},
            ),
            timestamp=self._given_s,
        )
        ids_n = np.zeros(len(found), np.int64)
        if len(tracked):
            # The library's order is another one, its identities begin at 0, and -1 is unknown.
            ids_n[tracked.data["row"]] = np.asarray(tracked.tracker_id, np.int64) + 1
        wrapped_n = np.where(ids_n > 0, (ids_n - 1) % MOST_IDS + 1, 0)
        return _known(found, wrapped_n)


def _known(found: Instances, ids_n: np.ndarray) -> Instances:
    return replace(found, track_ids_n=ids_n).selected(ids_n > 0)


def _library() -> tuple[Any, Any]:
    """
    :raises InputError: if it is not installed.
    """
    try:
        import supervision
        import trackers
    except ImportError as error:
        raise InputError(
            f"identities need the package trackers, which cannot be imported ({error}): "
            "pip install 'dense_perception[tracking]', or set tracking to false"
        ) from error
    return supervision, trackers
