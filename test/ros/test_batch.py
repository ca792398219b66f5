"""Frames answered together by a real model, on a recorded graph: no node, no process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import BackendError
from dense_perception.core.prediction import Prediction
from dense_perception.ros import batch as batch_module
from dense_perception.ros.batch import ModelSlot, Received, answer_batch
from dense_perception.ros.camera import Camera
from dense_perception.ros.convert import image_message
from dense_perception.ros.diagnostics import Health
from dense_perception.ros.outputs import DepthOutputs, PointOutputs
from dense_perception.ros.params import DepthParameters
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import red_depth, write_red_artefact
from test.support.depth_messages import depth_of
from test.support.recorded_graph import RecordedGraph, recorded_log
from test.support.ros_probe import header, random_rgb

GROUPS = (DepthOutputs, PointOutputs)
FOCAL_PX = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
STAMPS = itertools.count(100)


class Watched(Perceiver):
    """Remembers how many frames it was asked for at a time, and for which maps."""

    asked: list[tuple[int, frozenset[str]]]

    def perceive(
        self, frames: Sequence[Frame], wanted: Collection[str] | None = None
    ) -> list[Prediction]:
        self.asked.append((len(frames), frozenset(wanted or ())))
        return super().perceive(frames, wanted)


@pytest.fixture
def perceiver(tmp_path: Path) -> Iterator[Watched]:
    write_red_artefact(tmp_path / "red.onnx")
    with Watched.load(tmp_path / "red.onnx", backend="onnxruntime", threads=1) as loaded:
        loaded.asked = []
        yield loaded


class Cameras:
    """Cameras by name on one graph, listening."""

    def __init__(self, perceiver: Perceiver, *names: str) -> None:
        self.settings = DepthParameters()
        self.graph = RecordedGraph()
        self.log, self.logged = recorded_log()
        self.named = {name: Camera(name, self.graph, self.log) for name in names}
        for camera in self.named.values():
            specs = [spec for g in GROUPS for spec in g.specs(perceiver.card, self.settings)]
            camera.offer(GROUPS, specs, perceiver.card, self.settings)
            camera.listen(self.settings, lambda name, message: None)

    def answer(self, perceiver: Perceiver, **messages: Image) -> None:
        arrived_s = time.perf_counter()
        answer_batch(
            perceiver,
            [(self.named[name], Received(m, arrived_s)) for name, m in messages.items()],
            self.settings,
            lambda: 200 * 10**9,
        )


def picture(seed: int = 0, frame_id: str = "optical") -> Image:
    return image_message(random_rgb(seed=seed), header(next(STAMPS), frame_id), "rgb8")


def test_every_camera_gets_its_own_header_and_numbers(perceiver: Watched) -> None:
    cameras = Cameras(perceiver, "front", "left", "right")
    cameras.graph.listen(*(f"~/{name}/depth/image" for name in cameras.named))
    messages = {name: picture(seed, name) for seed, name in enumerate(cameras.named)}
    cameras.answer(perceiver, **messages)
    for seed, name in enumerate(cameras.named):
        (depth,) = cameras.graph.sent(f"~/{name}/depth/image")
        assert depth.header == messages[name].header
        np.testing.assert_allclose(
            depth_of(depth), red_depth(random_rgb(seed=seed), FOCAL_PX), rtol=1e-5
        )
    # Three cameras are a batch of two and one of one: runtimes compile for each size.
    assert perceiver.asked == [(2, frozenset({"depth"})), (1, frozenset({"depth"}))]


def test_outputs_of_one_frame_share_its_header(perceiver: Watched) -> None:
    cameras = Cameras(perceiver, "")
    topics = ("~/depth/image", "~/depth/camera_info", "~/points")
    cameras.graph.listen(*topics)
    message = picture()
    cameras.answer(perceiver, **{"": message})
    for topic in topics:
        (answer,) = cameras.graph.sent(topic)
        assert answer.header == message.header, topic


def test_a_frame_that_cannot_be_used_leaves_the_others(perceiver: Watched) -> None:
    cameras = Cameras(perceiver, "front", "left")
    cameras.graph.listen("~/front/depth/image", "~/left/depth/image")
    wrong, right = picture(), picture()
    wrong.encoding = "nonsense"
    cameras.answer(perceiver, front=wrong, left=right)
    assert not cameras.graph.sent("~/front/depth/image")
    assert cameras.graph.sent("~/left/depth/image")[0].header == right.header
    assert "nonsense" in cameras.named["front"].frame_log.last_error
    assert not cameras.named["left"].frame_log.last_error
    ((level, text),) = cameras.logged.lines
    assert level == "error"
    assert text.startswith("front: frame not answered: ")


def test_a_model_that_fails_fails_every_frame_and_the_next_batch_is_answered(
    perceiver: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = Cameras(perceiver, "front", "left")
    cameras.graph.listen("~/front/depth/image", "~/left/depth/image")
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            raise RuntimeError("out of memory")

        patched.setattr(perceiver, "perceive", fail)
        cameras.answer(perceiver, front=picture(), left=picture())
    for camera in cameras.named.values():
        assert camera.frame_log.last_error == "RuntimeError: out of memory"
    cameras.answer(perceiver, front=picture(), left=picture())
    assert len(cameras.graph.sent("~/front/depth/image")) == 1


def test_what_nobody_subscribes_to_is_neither_decoded_nor_inferred(
    perceiver: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = Cameras(perceiver, "front", "left")
    cameras.graph.listen("~/left/points")
    decoded: list[str] = []
    for name, camera in cameras.named.items():
        original = camera.frame

        def frame(message, settings, name=name, original=original):
            decoded.append(name)
            return original(message, settings)

        monkeypatch.setattr(camera, "frame", frame)
    cameras.answer(perceiver, front=picture(), left=picture())
    assert decoded == ["left"]
    assert [count for count, _ in perceiver.asked] == [1]
    assert cameras.graph.sent("~/left/points")
    assert not cameras.graph.sent("~/left/depth/image")


def test_a_camera_that_was_muted_meanwhile_is_left_out(perceiver: Watched) -> None:
    cameras = Cameras(perceiver, "front")
    cameras.graph.listen("~/front/depth/image")
    cameras.named["front"].mute()
    cameras.answer(perceiver, front=picture())
    assert not perceiver.asked
    assert not cameras.named["front"].frame_log.last_error


def test_the_stages_of_an_answer_are_booked(perceiver: Watched) -> None:
    cameras = Cameras(perceiver, "")
    cameras.graph.listen("~/depth/image")
    cameras.answer(perceiver, **{"": picture()})
    health = cameras.named[""].frame_log.health(Health("active", "red"))
    assert (health.answered, health.failed, health.unwanted) == (1, 0, 0)
    stages = {"wait", "convert", "prepare", "infer", "restore", "publish"}
    assert stages <= set(health.latencies_ms)


def worker_of(slot: ModelSlot, leave: threading.Event) -> threading.Thread:
    """A thread that is in the middle of a batch until ``leave`` is set."""
    entered = threading.Event()

    def work() -> None:
        with slot.answering():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(10)
    return thread


def test_the_model_changes_between_two_batches_and_not_within_one(perceiver: Watched) -> None:
    slot = ModelSlot()
    slot.perceiver = perceiver
    leave = threading.Event()
    worker = worker_of(slot, leave)
    order: list[str] = []
    new = object()

    def change() -> None:
        old = slot.change(new, lambda: order.append("meanwhile"))  # type: ignore[arg-type]
        order.append("changed" if old is perceiver else "lost")

    changer = threading.Thread(target=change, daemon=True)
    changer.start()
    changer.join(0.05)
    assert changer.is_alive()  # the batch at hand is not disturbed
    assert slot.perceiver is perceiver
    assert not order
    order.append("answered")
    leave.set()
    worker.join(10)
    changer.join(10)
    assert order == ["answered", "meanwhile", "changed"]
    with slot.answering() as now:
        assert now is new


def test_a_change_that_fails_keeps_the_old_model(perceiver: Watched) -> None:
    slot = ModelSlot()
    slot.perceiver = perceiver

    def fail() -> None:
        raise RuntimeError("no publisher")

    with pytest.raises(RuntimeError, match="no publisher"):
        slot.change(object(), fail)  # type: ignore[arg-type]
    with slot.answering() as now:
        assert now is perceiver


def test_a_worker_that_never_comes_back_is_named(
    perceiver: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "PATIENCE_S", 0.05)
    slot = ModelSlot()
    slot.perceiver = perceiver
    leave = threading.Event()
    worker = worker_of(slot, leave)
    with pytest.raises(BackendError, match="still busy"):
        slot.change(object(), lambda: None)  # type: ignore[arg-type]
    assert slot.perceiver is perceiver
    leave.set()
    worker.join(10)
    with slot.answering() as now:  # and the next batch is let in
        assert now is perceiver
