"""A node's bookkeeping: what came, what became of it, how long each stage took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from dense_perception.core.errors import DensePerceptionError
from dense_perception.ros.diagnostics import STAGES, Health
from dense_perception.runtime.timing import StageTimer

# A recorded stamp is not on this machine's clock, and its age says nothing about transport.
_MAX_TRANSPORT_MS = 10_000.0


class FrameLog:
    """Counts and times since the node became active; written by its threads, read by one timer."""

    def __init__(self) -> None:
        self.last_error = ""
        self.info_problem = ""
        self.scale_problem = ""
        self._times = StageTimer()
        self.restart()

    def restart(self) -> None:
        """Forget everything but the last error."""
        self._times.reset()
        self._answered = self._failed = self._unwanted = 0
        self._counted = (0, 0, 0)
        self._recent = (0, 0)
        self._intrinsics = ""
        self._active_since = time.monotonic()
        self._last_image: float | None = None

    def came(self) -> None:
        """An image arrived."""
        self._last_image = time.monotonic()
        self._times.tick("in")

    def unwanted(self) -> None:
        """Nobody subscribed when an image's turn came."""
        self._unwanted += 1

    def failed(self, error: Exception) -> str:
        """An image could not be answered; returns the reason in words."""
        known = isinstance(error, DensePerceptionError)
        self.last_error = str(error) if known else f"{type(error).__name__}: {error}"
        self._failed += 1
        return self.last_error

    def answered(self, stages_ms: Mapping[str, float], age_ms: float) -> None:
        """An image was answered; ``age_ms`` is how old its stamp was then."""
        transport_ms = age_ms - sum(stages_ms.values())
        if age_ms >= 0 and transport_ms < _MAX_TRANSPORT_MS:
            # Simulated time stands still between its ticks, while the stages take real time.
            self._times.add("transport", max(0.0, transport_ms))
        self._times.add_all(stages_ms)
        self._times.tick("out")
        self._answered += 1

    def calibration(self, assumed_hfov_deg: float | None, problem: str) -> bool:
        """Which intrinsics an image got; returns whether ``problem`` is news."""
        is_news = bool(problem) and problem != self.info_problem
        self.info_problem = problem
        self._intrinsics = (
            "from camera_info"
            if assumed_hfov_deg is None
            else f"assumed {assumed_hfov_deg:g} degrees horizontally"
        )
        return is_news

    def health(self, known: Health) -> Health:
        """``known`` completed with the counts and times.

        A period in which no image's turn came changes nothing about the recent ones: a slow camera
        whose every image fails is not well in between.
        """
        now, summary = time.monotonic(), self._times.summary()
        answered, failed, unwanted = counts = (self._answered, self._failed, self._unwanted)
        if counts != self._counted:
            self._recent = (answered - self._counted[0], failed - self._counted[1])
            self._counted = counts
        return replace(
            known,
            rate_in_hz=self._times.rate_hz("in"),
            rate_out_hz=self._times.rate_hz("out"),
            answered=answered,
            failed=failed,
            unwanted=unwanted,
            recent_answered=self._recent[0],
            recent_failed=self._recent[1],
            latencies_ms={
                stage: (summary[stage].median_ms, summary[stage].p95_ms)
                for stage in STAGES
                if stage in summary
            },
            intrinsics=self._intrinsics,
            seconds_since_image=None if self._last_image is None else now - self._last_image,
            seconds_active=now - self._active_since,
            last_error=self.last_error,
            notes=(*known.notes, *self._notes()),
        )

    def _notes(self) -> tuple[str, ...]:
        if self.scale_problem:
            return (self.scale_problem, *self._calibration_notes())
        return self._calibration_notes()

    def _calibration_notes(self) -> tuple[str, ...]:
        if self.info_problem:
            return (f"camera_info is not used: {self.info_problem}",)
        if self._intrinsics.startswith("assumed"):
            return (f"no camera_info, field of view {self._intrinsics}",)
        return ()
