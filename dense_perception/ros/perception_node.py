"""The lifecycle node around a :class:`Perceiver`; what is published is left to ``Outputs``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.frame import Frame
from dense_perception.core.prediction import Prediction
from dense_perception.ros.camera_input import CameraFrame, CameraInput
from dense_perception.ros.declare import DeclaredParameters
from dense_perception.ros.diagnostics import Health, diagnostic_array
from dense_perception.ros.frame_log import FrameLog
from dense_perception.ros.params import Parameters
from dense_perception.runtime.mailbox import Worker
from dense_perception.runtime.perceiver import Perceiver

_LOG_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What outputs are made from; ``info`` is the calibration in use, ``None`` without one."""

    frame: Frame
    prediction: Prediction
    header: Header
    info: CameraInfo | None


class Outputs(Protocol):
    """The publishers of one node: created at configure, closed at cleanup."""

    def wanted(self) -> bool:
        """Does anybody subscribe?"""

    def publish(self, answer: Answer) -> None:
        """Publish what somebody subscribes to; called by the worker thread."""

    def close(self) -> None:
        """Destroy the publishers."""


OutputsFactory = Callable[["PerceptionNode[Any]", ModelCard], Outputs]


class PerceptionNode(LifecycleNode, Generic[Parameters]):
    """Images in, a model's answers out, under lifecycle control.

    configure loads the model and creates the publishers, activate subscribes and starts the
    worker, deactivate and cleanup undo them. The subscription only stores the newest message; the
    worker thread converts, infers and publishes. An error in a frame is counted and logged, and
    the next frame is taken.

    :raises InputError: if the node was started with a wrong parameter value.
    """

    def __init__(
        self, name: str, parameters: type[Parameters], outputs: OutputsFactory, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._state = "unconfigured"
        self._declared = DeclaredParameters(self, parameters, lambda: self._state != "unconfigured")
        self._make_outputs = outputs
        self._outputs: Outputs | None = None
        self._perceiver: Perceiver | None = None
        self._input: CameraInput | None = None
        self._worker: Worker[tuple[Any, float]] | None = None
        self._log = FrameLog()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock, so that a simulation that stands still is still reported on.
        self.create_timer(
            self.parameters.diagnostics_period_s,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def parameters(self) -> Parameters:
        """The values now in force; a new object after each change."""
        return self._declared.current

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        wish = self.parameters
        started = time.monotonic()
        try:
            self._perceiver = Perceiver.load(
                wish.model,
                backend=wish.backend,
                precision=wish.precision,
                device=wish.device,
                threads=wish.threads,
                trust_engine=wish.trust_engine,
                default_hfov_deg=wish.default_hfov_deg,
                output_size=wish.output_size,
                max_output_side=wish.max_output_side,
            )
            self._outputs = self._make_outputs(self, self._perceiver.card)
        except DensePerceptionError as error:
            return self._not_configured(str(error))
        except Exception as error:
            return self._not_configured(f"{type(error).__name__}: {error}")
        self.get_logger().info(
            f"{self._perceiver.card.name} ready in {time.monotonic() - started:.2f} s, "
            f"{self._perceiver.selection.summary()}"
        )
        self._log.last_error = ""
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._log.restart()
        self._worker = Worker(self._answer, self._on_frame_error).start()
        wish = self.parameters
        self._input = CameraInput(
            self, wish.image_transport, wish.input_reliability, self._on_image
        )
        self._state = "active"
        self.get_logger().info(f"waiting for images on {self._input.topic}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_answering()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_error(state)

    def close(self) -> None:
        """Stop the worker and free the model; the node can be destroyed afterwards."""
        self._release()

    def _not_configured(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._log.last_error = reason
        self.get_logger().error(
            f"cannot configure: {reason} (the node stays alive: set its parameters and configure "
            "it again)"
        )
        return TransitionCallbackReturn.FAILURE

    def _stop_answering(self) -> bool:
        """Whether the worker has ended; it finishes the frame at hand first."""
        if self._input is not None:
            self._input.close()
            self._input = None
        worker, self._worker = self._worker, None
        ended = worker is None or worker.stop()
        if not ended:
            self.get_logger().error("the worker is still busy with a frame after 10 s")
        return ended

    def _release(self) -> None:
        ended = self._stop_answering()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        if self._perceiver is not None:
            if ended:  # a runtime must not be freed under a frame that still runs in it
                self._perceiver.close()
            self._perceiver = None
        self._state = "unconfigured"

    def _on_image(self, message: Any) -> None:
        self._log.came()
        if self._worker is not None:
            self._worker.put((message, time.perf_counter()))

    def _answer(self, received: tuple[Any, float]) -> None:
        """One frame, in the worker thread."""
        message, arrived_s = received
        outputs, perceiver, camera = self._outputs, self._perceiver, self._input
        if outputs is None or perceiver is None or camera is None:
            return
        if not outputs.wanted():
            self._log.unwanted()
            return
        taken_s = time.perf_counter()
        image = camera.frame(message, matrix=self.parameters.camera_matrix)
        self._note_calibration(image)
        converted_s = time.perf_counter()
        prediction = perceiver.perceive([image.frame])[0]
        perceived_s = time.perf_counter()
        outputs.publish(Answer(image.frame, prediction, message.header, image.info))
        published_s = time.perf_counter()
        self._log.answered(
            {
                "wait": (taken_s - arrived_s) * 1e3,
                "convert": (converted_s - taken_s) * 1e3,
                **prediction.timings_ms,
                "publish": (published_s - perceived_s) * 1e3,
            },
            age_ms=(self.get_clock().now().nanoseconds - image.frame.stamp_ns) / 1e6,
        )

    def _on_frame_error(self, error: Exception) -> None:
        reason = self._log.failed(error)
        self.get_logger().error(
            f"frame not answered: {reason}", throttle_duration_sec=_LOG_PERIOD_S
        )

    def _note_calibration(self, image: CameraFrame) -> None:
        assumed = self.parameters.default_hfov_deg if image.info is None else None
        if self._log.calibration(assumed, image.info_problem):
            self.get_logger().warning(
                f"camera_info is not used: {image.info_problem}",
                throttle_duration_sec=_LOG_PERIOD_S,
            )

    def _publish_diagnostics(self) -> None:
        message = diagnostic_array(
            self._health(), self.get_fully_qualified_name(), self.get_clock().now().to_msg()
        )
        self._diagnostics.publish(message)

    def _health(self) -> Health:
        mailbox = self._worker.mailbox if self._worker is not None else None
        return self._log.health(
            Health(
                state=self._state,
                model=self.parameters.model,
                backend=self._perceiver.backend.description if self._perceiver else "",
                backend_reason=self._perceiver.selection.summary() if self._perceiver else "",
                notes=self._perceiver.selection.warnings if self._perceiver else (),
                input_topic=self._input.topic if self._input is not None else "",
                wanted=self._outputs is not None and self._outputs.wanted(),
                received=mailbox.received if mailbox is not None else 0,
                dropped=mailbox.dropped if mailbox is not None else 0,
            )
        )
