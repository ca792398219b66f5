"""The lifecycle node around a :class:`Perceiver`; what is published is left to output groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.ros.batch import Received, answer_batch
from dense_perception.ros.camera import Camera
from dense_perception.ros.declare import DeclaredParameters
from dense_perception.ros.diagnostics import Health, diagnostic_array
from dense_perception.ros.model_slot import PATIENCE_S, ModelSlot, load_model, needs_reload
from dense_perception.ros.outputs import OutputGroup
from dense_perception.ros.parameter_table import Parameters
from dense_perception.ros.topics import TopicSpec
from dense_perception.runtime.perceiver import Perceiver
from dense_perception.runtime.stream import Worker


class PerceptionNode(LifecycleNode, Generic[Parameters]):
    """Images in, a model's answers out, under lifecycle control.

    configure loads the model and creates the publishers, activate subscribes and starts the
    worker, deactivate and cleanup undo them. The subscriptions only store each camera's newest
    message; the worker thread converts, infers and publishes. An error in a frame is counted and
    logged, and the next frame is taken. Setting ``model`` while configured loads the new model
    beside the old one and changes over between two frames; ``~/set_enabled`` unsubscribes without
    a transition.

    :param needs: the entry of a card's outputs without which the node makes no sense, or empty.
    :raises InputError: if the node was started with a wrong parameter value.
    """

    def __init__(
        self,
        name: str,
        parameters: type[Parameters],
        groups: Sequence[type[OutputGroup]],
        needs: str = "",
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.state = "unconfigured"
        self._groups = tuple(groups)
        self._needs = needs
        self._enabled = True
        self._model = ModelSlot()
        self._cameras: dict[str, Camera] = {}
        self._worker: Worker[Received] | None = None
        self._said: set[str] = set()
        self._last_error = ""
        self._declared = DeclaredParameters(
            self,
            parameters,
            lambda: self.state != "unconfigured",
            self._use_parameters,
            self._announce,
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock, so that a simulation that stands still is still reported on.
        self.create_timer(
            self.parameters.diagnostics_period_s,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    @property
    def parameters(self) -> Any:
        """The values now in force; a new object after each change."""
        return self._declared.current

    def say_once(self, text: str) -> None:
        """A warning that is not repeated in the node's life."""
        if text not in self._said:
            self._said.add(text)
            self.get_logger().warning(text)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        wish = self.parameters
        try:
            self._model.perceiver, specs = self._load(wish)
            self._cameras = {name: Camera(self, name) for name in wish.cameras or ("",)}
            self._offer(specs, self._model.perceiver.card)
        except DensePerceptionError as error:
            return self._not_configured(str(error))
        except Exception as error:
            return self._not_configured(f"{type(error).__name__}: {error}")
        self._last_error = ""
        self.state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        for camera in self._cameras.values():
            camera.log.restart()
        worker = Worker(self._answer, self._on_worker_error, senders=tuple(self._cameras))
        self._worker = worker.start()
        self.state = "active"
        if self._enabled:
            self._listen()
        else:
            self.get_logger().info("active but disabled: call ~/set_enabled")
        self._announce()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_answering()
        self.state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS  # to unconfigured, from where it can start again

    def close(self) -> None:
        """Stop the worker and free the model; the node can be destroyed afterwards."""
        self._release()

    def _load(self, wish: Any) -> tuple[Perceiver, tuple[TopicSpec, ...]]:
        """The model and the topics it fills.

        :raises DensePerceptionError: if it does not load or does not fit this node.
        """
        perceiver = load_model(wish, self.get_logger().info)
        try:
            return perceiver, self._specs(perceiver.card, wish)
        except BaseException:
            perceiver.close()
            raise

    def _specs(self, card: ModelCard, wish: Any) -> tuple[TopicSpec, ...]:
        if self._needs and self._needs not in card.outputs:
            raise InputError(
                f"model {card.name} ({card.task}) gives no {self._needs}, expected a model that "
                "does: `dense-perception models` lists them"
            )
        return tuple(spec for group in self._groups for spec in group.specs(card, wish))

    def _use_parameters(self, wish: Any, take: Callable[[], None]) -> None:
        """Put changed parameters into effect, or raise and leave everything as it is.

        ``take`` makes them the node's; between two batches, so that no frame is answered by a new
        model or on new topics with the old values.
        """
        perceiver = self._model.perceiver
        if perceiver is None:
            take()
            return
        if needs_reload(self.parameters, wish):
            new, specs = self._load(wish)

            def change_over() -> None:
                self._offer(specs, new.card)
                take()

            self._model.change(new, change_over)
            return
        specs = self._specs(perceiver.card, wish)
        with self._model.between_batches():
            perceiver.default_hfov_deg = wish.default_hfov_deg
            perceiver.output_size = wish.output_size
            perceiver.max_output_side = wish.max_output_side
            for camera in self._cameras.values():
                camera.keep(specs)
            take()

    def _offer(self, specs: Sequence[TopicSpec], card: ModelCard) -> None:
        for camera in self._cameras.values():
            camera.offer(self._groups, specs, card)

    def _announce(self) -> None:
        if self.state == "active":
            for camera in self._cameras.values():
                camera.announce()

    def _not_configured(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._last_error = reason
        if self.context.ok():  # else a signal has ended it in the middle, and nothing is wrong
            self.get_logger().error(
                f"cannot configure: {reason} (the node stays alive: set its parameters and "
                "configure it again)"
            )
        return TransitionCallbackReturn.FAILURE

    def _listen(self) -> None:
        for camera in self._cameras.values():
            camera.listen(self._on_image)
        named = ", ".join(camera.input.topic for camera in self._cameras.values() if camera.input)
        self.get_logger().info(f"waiting for images on {named}")

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if self.state == "active" and request.data != self._enabled:
            if request.data:
                self._listen()
            else:
                for camera in self._cameras.values():
                    camera.mute()
                if self._worker is not None:
                    self._worker.mailbox.clear()
        self._enabled = request.data
        words = "enabled" if self._enabled else "disabled"
        later = (
            "" if self.state == "active" else f"; the node is {self.state}, so from activation on"
        )
        response.success, response.message = True, words + later
        return response

    def _stop_answering(self) -> bool:
        """Whether the worker has ended; it finishes the frames at hand first."""
        for camera in self._cameras.values():
            camera.mute()
        worker, self._worker = self._worker, None
        ended = worker is None or worker.stop(PATIENCE_S)
        if not ended:
            self.get_logger().error(f"the worker is still busy after {PATIENCE_S:g} s")
        return ended

    def _release(self) -> None:
        ended = self._stop_answering()
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}
        self._model.empty(free=ended)
        self.state = "unconfigured"

    def _on_image(self, camera: str, message: Any) -> None:
        self._cameras[camera].log.came()
        if self._worker is not None:
            self._worker.put(Received(message, time.perf_counter()), camera)

    def _answer(self, batch: dict[str, Received]) -> None:
        """The newest frames, in the worker thread."""
        cameras = self._cameras
        with self._model.answering() as perceiver:
            if perceiver is not None:
                answer_batch(
                    perceiver,
                    [(cameras[name], received) for name, received in batch.items()],
                    lambda: self.get_clock().now().nanoseconds,
                )

    def _on_worker_error(self, error: Exception) -> None:
        for camera in self._cameras.values():
            camera.failed(error)

    def _publish_diagnostics(self) -> None:
        healths = {name: self._health(camera) for name, camera in self._cameras.items()}
        message = diagnostic_array(
            healths or {"": self._idle_health()},
            self.get_fully_qualified_name(),
            self.get_clock().now().to_msg(),
        )
        self._diagnostics.publish(message)

    def _idle_health(self) -> Health:
        return Health(
            state=self.state,
            model=self.parameters.model,
            enabled=self._enabled,
            last_error=self._last_error,
        )

    def _health(self, camera: Camera) -> Health:
        mailbox = self._worker.mailbox if self._worker is not None else None
        perceiver = self._model.perceiver
        return camera.log.health(
            Health(
                state=self.state,
                model=self.parameters.model,
                backend=perceiver.backend.description if perceiver else "",
                backend_reason=perceiver.selection.summary() if perceiver else "",
                notes=perceiver.selection.warnings if perceiver else (),
                input_topic=camera.input.topic if camera.input is not None else "",
                wanted=bool(camera.wanted()),
                enabled=self._enabled,
                received=mailbox.received(camera.name) if mailbox is not None else 0,
                dropped=mailbox.dropped(camera.name) if mailbox is not None else 0,
            )
        )
