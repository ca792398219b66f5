"""One camera on a recorded graph: subscriptions, calibration, scale, outputs, being muted."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan

from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, DepthMap, Prediction
from dense_perception.ros.camera import Camera, check_topics_differ, image_topic
from dense_perception.ros.convert import camera_info_message, image_message
from dense_perception.ros.diagnostics import Health
from dense_perception.ros.node_graph import Offer
from dense_perception.ros.outputs import Answer, DepthOutputs, PointOutputs
from dense_perception.ros.params import DepthParameters
from test.support.artefacts import red_card
from test.support.depth_messages import depth_of, xyz_of
from test.support.multitask_artefacts import multitask_card
from test.support.recorded_graph import RecordedGraph, recorded_log
from test.support.ros_probe import header, random_rgb

CAMERA = Intrinsics(64, 48, 80.0, 78.0, 30.5, 24.5)
STAMPS = itertools.count(100)
DEFAULTS = DepthParameters()
OUTPUTS = ("image", "image/compressedDepth", "camera_info")


class Live:
    """A camera that listens, and what it is connected to."""

    def __init__(self, settings: DepthParameters = DEFAULTS, name: str = "") -> None:
        self.settings = settings
        self.graph = RecordedGraph()
        self.log, self.logged = recorded_log()
        self.camera: Camera[DepthParameters] = Camera(name, self.graph, self.log)
        self.images: list[tuple[str, object]] = []
        self.offer()
        self.camera.listen(settings, lambda name, message: self.images.append((name, message)))

    def offer(self) -> None:
        card = red_card()
        specs = DepthOutputs.specs(card, self.settings)
        self.camera.offer((DepthOutputs,), specs, card, self.settings)

    def frame(self, message: object) -> Frame:
        taken = self.camera.frame(message, self.settings)  # type: ignore[arg-type]
        assert taken is not None
        return taken.frame


def picture() -> Image:
    return image_message(random_rgb(), header(next(STAMPS)), "rgb8")


def prediction(metres: float, kind: DepthKind = DepthKind.METRIC) -> Prediction:
    depth = DepthMap(np.full((48, 64), metres, np.float32), kind)
    return Prediction(64, 48, Intrinsics.from_fov(64, 48, 60.0), depth=depth)


BLACK = Frame(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("transport", "name", "expected"),
    [
        ("raw", "", {"image": Image, "camera_info": CameraInfo}),
        ("compressed", "", {"image/compressed": CompressedImage, "camera_info": CameraInfo}),
        ("raw", "left", {"left/image": Image, "left/camera_info": CameraInfo}),
    ],
)
def test_it_subscribes_below_its_name_and_lets_go(
    transport: str, name: str, expected: dict[str, type]
) -> None:
    live = Live(replace(DEFAULTS, image_transport=transport), name)
    published = {each for each in live.graph.open if each.startswith("~/")}
    assert published == {f"~/{name}/depth/{each}".replace("//", "/") for each in OUTPUTS}
    subscribed = {t: each.kind for t, each in live.graph.open.items() if t not in published}
    assert subscribed == expected
    live.camera.mute()
    assert set(live.graph.open) == published
    live.camera.close()
    assert not live.graph.open


def test_images_go_on_under_the_cameras_name_untouched() -> None:
    live = Live(name="left")
    message = picture()
    live.graph.put("left/image", message)
    assert live.images == [("left", message)]


def test_a_frame_is_the_image_with_its_calibration() -> None:
    live = Live()
    message = picture()
    frame = live.frame(message)
    np.testing.assert_array_equal(frame.rgb_hwc, random_rgb())
    assert frame.stamp_ns == message.header.stamp.sec * 10**9 + 123_456_789
    assert frame.frame_id == "camera_optical"
    assert frame.intrinsics is None
    live.graph.put("camera_info", camera_info_message(None, CAMERA, header(1)))
    assert live.frame(message).intrinsics == CAMERA


def test_a_compressed_frame_is_decoded() -> None:
    live = Live(replace(DEFAULTS, image_transport="compressed"))
    data = cv2.imencode(".png", random_rgb()[..., ::-1])[1].tobytes()
    message = CompressedImage(header=header(5), format="png")
    message.data.frombytes(data)
    np.testing.assert_array_equal(live.frame(message).rgb_hwc, random_rgb())


@pytest.mark.parametrize(
    ("matrix", "topic", "focal_px"),
    [("K", "image", 80.0), ("P", "image", 40.0), ("auto", "image", 80.0)],
)
def test_the_matrix_is_the_one_the_settings_name(matrix: str, topic: str, focal_px: float) -> None:
    live = Live(replace(DEFAULTS, camera_matrix=matrix))
    info = camera_info_message(None, CAMERA, header(1))
    info.p[0] = 40.0
    live.graph.put("camera_info", info)
    intrinsics = live.frame(picture()).intrinsics
    assert intrinsics is not None
    assert intrinsics.fx == focal_px


def test_auto_takes_p_where_the_topic_says_rectified() -> None:
    class Remapped(RecordedGraph):
        def subscribe(self, kind, topic, callback, profile, *, is_image=False):
            opened = super().subscribe(kind, topic, callback, profile, is_image=is_image)
            opened.topic_name = opened.topic_name.replace("/image", "/front/image_rect")
            return opened

    graph = Remapped()
    camera: Camera[DepthParameters] = Camera("", graph, recorded_log()[0])
    camera.listen(DEFAULTS, lambda name, message: None)
    info = camera_info_message(None, CAMERA, header(1))
    info.p[0] = 40.0
    graph.put("camera_info", info)
    taken = camera.frame(picture(), DEFAULTS)
    assert taken is not None
    assert taken.frame.intrinsics is not None
    assert taken.frame.intrinsics.fx == 40.0


def test_a_calibration_that_cannot_be_used_is_named_once_and_assumed_for() -> None:
    live = Live()
    info = camera_info_message(None, CAMERA, header(1))
    info.k[0] = float("nan")
    live.graph.put("camera_info", info)
    for _ in range(3):
        assert live.frame(picture()).intrinsics is None
    (line,) = live.logged.lines
    assert line[0] == "warning"
    assert "camera_info is not used: K of camera_info is not usable" in line[1]


def test_a_lens_is_followed_and_said_once() -> None:
    live = Live()
    info = camera_info_message(None, CAMERA, header(1))
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    live.graph.put("camera_info", info)
    live.camera.offer(
        (DepthOutputs, PointOutputs),
        (*DepthOutputs.specs(red_card(), DEFAULTS), *PointOutputs.specs(red_card(), DEFAULTS)),
        red_card(),
        DEFAULTS,
    )
    live.graph.listen("~/points", "~/depth/camera_info")
    for _ in range(2):
        taken = live.camera.frame(picture(), DEFAULTS)
        assert taken is not None
        camera = taken.frame.intrinsics
        assert camera is not None
        seen = Prediction(64, 48, camera, depth=prediction(2.0).depth)
        live.camera.publish(Answer(taken.frame, seen, header(3), taken.info), DEFAULTS)
    xyz = xyz_of(live.graph.sent("~/points")[0]).reshape(-1, 3).astype(np.float64)
    pixels = cv2.projectPoints(xyz, np.zeros(3), np.zeros(3), CAMERA.matrix(), np.array(info.d))
    rows, columns = np.divmod(np.arange(64 * 48), 64)
    np.testing.assert_allclose(pixels[0][:, 0], np.stack([columns, rows], 1), atol=0.01)
    assert list(live.graph.sent("~/depth/camera_info")[0].d) == list(info.d)
    (line,) = live.logged.lines
    assert "images on /image are not rectified: ~/points follows the lens" in line[1]
    health = live.camera.frame_log.health(Health("active", "model"))
    assert health.intrinsics == "from camera_info, with the distortion of its lens"
    assert health.notes == ()


def test_distortion_that_nobody_knows_is_said_once_and_on_diagnostics() -> None:
    live = Live()
    info = camera_info_message(None, CAMERA, header(1))
    info.distortion_model, info.d = "omni", [1.0] * 5
    live.graph.put("camera_info", info)
    for _ in range(2):
        assert live.frame(picture()).intrinsics == CAMERA
    (line,) = live.logged.lines
    (note,) = live.camera.frame_log.health(Health("active", "model")).notes
    assert line == ("warning", note)
    assert "'omni', expected plumb_bob" in note


def test_outputs_that_are_scaled_down_are_said_once_and_on_diagnostics() -> None:
    live = Live()
    settings = replace(DEFAULTS, max_output_side=32)
    taken = live.camera.frame(picture(), settings)
    assert taken is not None
    depth = DepthMap(np.ones((24, 32), np.float32), DepthKind.METRIC)
    small = Prediction(32, 24, CAMERA.resized(32, 24), depth=depth)
    for _ in range(2):
        live.camera.publish(Answer(taken.frame, small, header(3), taken.info), settings)
    said = "32x24, scaled down from the image's 64x48 by max_output_side"
    (line,) = (line for line in live.logged.lines if "outputs" in line[1])
    assert line == ("warning", f"the outputs are {said}: raise it if you need every pixel")
    health = live.camera.frame_log.health(Health("active", "model"))
    assert health.output_size == said
    live.camera.publish(Answer(taken.frame, small, header(3), taken.info), DEFAULTS)
    assert live.camera.frame_log.output_size == "32x24"


def test_a_muted_camera_keeps_its_calibration() -> None:
    live = Live()
    live.graph.put("camera_info", camera_info_message(None, CAMERA, header(1)))
    live.camera.mute()
    live.camera.listen(DEFAULTS, lambda name, message: None)
    assert live.frame(picture()).intrinsics == CAMERA


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("", "", "camera_optical"),
        ("mast_optical", "", "mast_optical"),
        ("{camera}_optical", "left", "left_optical"),
    ],
)
def test_the_frame_of_the_answer_may_be_named(given: str, name: str, expected: str) -> None:
    live = Live(replace(DEFAULTS, frame_id=given), name)
    message = picture()
    taken = live.camera.frame(message, live.settings)
    assert taken is not None
    assert taken.header.frame_id == taken.frame.frame_id == expected
    assert taken.header.stamp == message.header.stamp
    assert message.header.frame_id == "camera_optical", "the message is not ours to change"


def test_a_calibration_that_is_required_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(replace(DEFAULTS, require_camera_info=True))
    assert live.camera.frame(picture(), live.settings) is None, "it may come any moment"
    monkeypatch.setattr("dense_perception.ros.camera._INFO_PATIENCE_S", 0.0)
    with pytest.raises(InputError, match="no camera_info came on /camera_info, which require"):
        live.camera.frame(picture(), live.settings)
    wrong = camera_info_message(None, CAMERA, header(1))
    wrong.k[0] = 0.0
    live.graph.put("camera_info", wrong)
    with pytest.raises(InputError, match="camera_info is not usable, and require_camera_info"):
        live.camera.frame(picture(), live.settings)
    live.graph.put("camera_info", camera_info_message(None, CAMERA, header(1)))
    assert live.frame(picture()).intrinsics == CAMERA


def test_images_over_the_rate_are_left_out_and_counted() -> None:
    live = Live(replace(DEFAULTS, max_rate_hz=0.001))
    assert [live.camera.admits(live.settings) for _ in range(5)] == [True] + 4 * [False]
    assert all(live.camera.admits(DEFAULTS) for _ in range(5))
    health = live.camera.frame_log.health(Health("active", "model"))
    assert health.over_rate == 4
    assert health.rate_in_hz > 0, "they came all the same"


def test_a_latched_calibration_is_asked_for_where_there_is_one() -> None:
    live = Live()
    live.graph.offered = {"/camera_info": [Offer("/driver", "sensor_msgs/msg/CameraInfo")]}
    live.camera.look()
    assert live.graph.opened.count("camera_info") == 1  # a volatile one does not match
    live.graph.open["first"] = live.graph.open.pop("camera_info")  # the graph keeps one a name
    live.graph.offered["/camera_info"][0] = Offer("/server", "sensor_msgs/msg/CameraInfo", True)
    live.camera.look()
    live.camera.look()
    assert live.graph.opened.count("camera_info") == 2
    live.graph.put("camera_info", camera_info_message(None, CAMERA, header(1)))
    assert live.frame(picture()).intrinsics == CAMERA


@pytest.mark.parametrize(
    ("remappings", "expected"),
    [
        ({}, "image/compressed"),
        ({"/image": "/cam/rgb"}, "/cam/rgb/compressed"),
        ({"/image": "/cam/rgb/compressed"}, "/cam/rgb/compressed"),
        ({"/image/compressed": "/jpeg", "/image": "/cam/rgb"}, "image/compressed"),
    ],
)
def test_compressed_images_follow_a_remapping_of_image(
    remappings: dict[str, str], expected: str
) -> None:
    graph = RecordedGraph()
    graph.remappings = remappings
    assert image_topic(graph, "", "compressed") == expected
    assert image_topic(graph, "", "raw") == "image"


def test_cameras_that_share_a_topic_are_refused_by_name() -> None:
    graph = RecordedGraph()
    settings = replace(DEFAULTS, cameras=("front", "left", "rear"))
    check_topics_differ(graph, settings)
    graph.remappings = {"/front/image": "/cam/image", "/rear/image": "/cam/image"}
    with pytest.raises(InputError, match="front and rear both take /cam/image"):
        check_topics_differ(graph, settings)


RAW, JPEG = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("transport", "offered", "seconds", "named"),
    [
        ("raw", {}, 6, "no publisher on /image: start the camera"),
        ("raw", {}, 3, ""),
        (
            "raw",
            {"/image/compressed": JPEG},
            6,
            "no publisher on /image; /image/compressed exists: set image_transport to compressed",
        ),
        ("compressed", {"/image": RAW}, 6, "/image exists: set image_transport to raw"),
        ("raw", {"/image": JPEG}, 0, f"/image carries {JPEG}, expected {RAW}: set image_transport"),
        ("raw", {"/image": "std_msgs/msg/String"}, 0, "remap image to a topic of images"),
        ("raw", {"/image": RAW}, 6, "/camera publishes /image, but no image comes"),
        ("raw", {"/image": RAW}, 3, ""),
    ],
)
def test_why_nothing_comes_is_said(
    transport: str,
    offered: dict[str, str],
    seconds: float,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Live(replace(DEFAULTS, image_transport=transport))
    live.graph.offered = {topic: [Offer("/camera", kind)] for topic, kind in offered.items()}
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + seconds)
    live.camera.look()
    live.camera.look()
    health = live.camera.frame_log.health(Health("active", "model", input_topic="/image"))
    if not named:
        assert live.logged.lines == []
        return
    (line,) = live.logged.lines
    assert line[0] == "warning"
    assert named in line[1]
    assert named in health.silence
    live.camera.frame_log.came()
    live.camera.look()
    assert live.camera.frame_log.silence == ""


def test_a_camera_of_the_wrong_kind_that_comes_later_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Launched before its camera, a node has warned of nobody when the camera starts."""
    live = Live()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 6)
    live.camera.look()
    live.graph.offered = {"/image": [Offer("/camera", "sensor_msgs/msg/CompressedImage")]}
    live.camera.look()
    live.camera.look()
    nobody, wrong = (line[1] for line in live.logged.lines)
    assert "no publisher on /image" in nobody
    assert "/image carries sensor_msgs/msg/CompressedImage" in wrong
    assert "set image_transport to compressed" in wrong


def test_outputs_go_where_the_model_and_the_listeners_say() -> None:
    live = Live()
    assert live.camera.wanted(DEFAULTS) == frozenset()
    live.graph.listen("~/depth/image")
    assert live.camera.wanted(DEFAULTS) == {"depth"}
    by_floor = replace(DEFAULTS, scale_source="camera_height")
    assert live.camera.wanted(by_floor) == {"depth"}
    live.camera.offer(
        (DepthOutputs,), DepthOutputs.specs(multitask_card(), DEFAULTS), multitask_card(), DEFAULTS
    )
    assert live.camera.wanted(by_floor) == {"depth", "labels"}  # labels tell floor from table
    assert live.camera.wanted(DEFAULTS) == {"depth"}


def test_a_new_model_keeps_the_publishers_that_both_have() -> None:
    live = Live()
    before = dict(live.graph.open)
    live.offer()
    assert live.graph.open == before
    assert all(live.graph.open[topic] is before[topic] for topic in before)
    live.camera.keep((), DEFAULTS)
    assert set(live.graph.open) == {"image", "camera_info"}


def test_the_frame_at_hand_is_scaled_though_the_camera_was_muted() -> None:
    settings = replace(DEFAULTS, scale_source="factor", scale_factor=2.5)
    live = Live(settings)
    for _ in range(2):
        depth = live.camera.refined(BLACK, prediction(2.0), settings).depth
        assert depth is not None
        np.testing.assert_allclose(depth.metres(), 5.0)
        live.camera.mute()


def test_settings_are_those_of_the_call() -> None:
    live = Live()
    near, far = replace(DEFAULTS, max_depth_m=1.0), replace(DEFAULTS, max_depth_m=3.0)
    for settings, is_valid in ((near, False), (far, True), (near, False)):
        depth = live.camera.refined(BLACK, prediction(2.0), settings).depth
        assert depth is not None
        assert np.isfinite(depth.values_hw).all() == is_valid
        assert np.isnan(depth.values_hw).all() != is_valid


def test_a_scale_that_is_not_known_yet_is_noted() -> None:
    settings = replace(DEFAULTS, scale_source="scan")
    live = Live(settings)
    assert live.graph.open["scale/scan"].kind is LaserScan
    answer = live.camera.refined(BLACK, prediction(2.0), settings)
    assert answer.depth is None  # metric depth is withheld until its scale is known
    assert "no scan at the images' time" in live.camera.frame_log.scale_problem


def test_depth_from_another_camera_gives_the_scale() -> None:
    settings = replace(DEFAULTS, scale_source="depth")
    live = Live(settings, "left")
    rng = np.random.default_rng(0)
    shape_hw = rng.uniform(1.0, 4.0, (48, 64)).astype(np.float32)
    frame = Frame(random_rgb(), stamp_ns=10 * 10**9)
    measured = image_message(shape_hw * 2.5, header(10), "32FC1")
    live.graph.put("left/scale/depth", measured)
    given = Prediction(64, 48, CAMERA, depth=DepthMap(shape_hw, DepthKind.RELATIVE))
    depth = live.camera.refined(frame, given, settings).depth
    assert depth is not None
    np.testing.assert_allclose(depth.metres(), shape_hw * 2.5, rtol=1e-3)
    assert live.camera.frame_log.scale_problem == ""


def test_publishing_uses_the_settings_of_the_batch() -> None:
    live = Live()
    live.graph.listen("~/depth/image")
    answer = Answer(BLACK, prediction(2.0), header(3), None)
    live.camera.publish(answer, DEFAULTS)
    live.camera.publish(answer, replace(DEFAULTS, depth_encoding="16UC1"))
    metres, millimetres = live.graph.sent("~/depth/image")
    np.testing.assert_array_equal(depth_of(metres), 2.0)
    np.testing.assert_array_equal(depth_of(millimetres), 2000)


def test_after_the_end_of_the_context_a_failure_is_counted_and_nobody_is_told() -> None:
    ended = False
    log, logged = recorded_log(lambda: not ended)
    camera: Camera[DepthParameters] = Camera("", RecordedGraph(), log)
    camera.failed(RuntimeError("first"))
    assert len(logged.lines) == 1
    ended = True
    another: Camera[DepthParameters] = Camera("", RecordedGraph(), log)
    another.failed(RuntimeError("publisher's context is invalid"))
    assert len(logged.lines) == 1
    assert "context is invalid" in another.frame_log.last_error
