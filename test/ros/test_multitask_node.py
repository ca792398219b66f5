"""segmentation_node and multitask_node as real processes, on a model known in closed form."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import SetBool

from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import LABEL_SETS
from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess
from test.support.artefacts import red_depth, write_red_artefact
from test.support.multitask_artefacts import multitask_answer, write_multitask_artefact
from test.support.ros_probe import Probe, header, random_rgb, wait_until

pytestmark = pytest.mark.ros

STAMPS = itertools.count(100)
FOCAL_PX = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
TOPICS = {
    "depth/image": Image,
    "points": PointCloud2,
    "segmentation/labels": Image,
    "segmentation/confidence": Image,
    "segmentation/overlay": Image,
    "normals": Image,
    "normals/color": Image,
    "edges": Image,
    "keypoints": Image,
    "reshading": Image,
}
DTYPES = {"mono8": np.uint8, "mono16": np.uint16, "rgb8": np.uint8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bytes.onnx"
    write_multitask_artefact(path)
    return path


def start(
    stack: ExitStack, folder: Path, environment: dict[str, str], node: str, *parameters: str
) -> ChildProcess:
    arguments = ["--ros-args", "-p", "backend:=onnxruntime", "-p", "threads:=1"]
    for each in ("diagnostics_period_s:=0.1", *parameters):
        arguments += ["-p", each]
    process = stack.enter_context(
        ChildProcess(
            f"dense_perception.ros.{node}", arguments, log=folder / "log", environment=environment
        )
    )
    process.wait_for_text("waiting for images", failure="cannot configure")
    return process


def pixels(message: Image) -> np.ndarray:
    dtype = DTYPES.get(message.encoding, np.float32)
    flat = np.frombuffer(message.data, dtype)
    return flat.reshape(message.height, message.width, -1).squeeze()


def test_all_outputs_of_one_pass_agree(
    tmp_path: Path, domain: int, ros_environment: dict[str, str], model: Path
) -> None:
    with ExitStack() as stack:
        node = start(stack, tmp_path, ros_environment, "multitask_node", f"model:={model}")
        probe = stack.enter_context(Probe(domain, "/multitask_node"))
        collectors = {
            name: probe.collect(kind, f"/multitask_node/{name}") for name, kind in TOPICS.items()
        }
        rgb_hwc = random_rgb(seed=3)
        message = image_message(rgb_hwc, header(next(STAMPS), "head_optical"), "rgb8")
        answers = dict(
            zip(
                collectors,
                probe.ask(
                    message.header.stamp.sec,
                    lambda: probe.send_image(message),
                    *collectors.values(),
                ),
                strict=True,
            )
        )
        for name, answer in answers.items():
            assert answer.header == message.header, name
            assert (answer.width, answer.height) == (64, 48), name
        expected = multitask_answer(rgb_hwc, FOCAL_PX)
        labels_hw = pixels(answers["segmentation/labels"])
        np.testing.assert_array_equal(labels_hw, expected["labels"])
        np.testing.assert_array_equal(
            pixels(answers["segmentation/confidence"]), expected["confidence"]
        )
        assert answers["normals"].encoding == "32FC3"
        np.testing.assert_allclose(pixels(answers["normals"]), expected["normals"], atol=1e-6)
        for name in ("edges", "keypoints", "reshading"):
            assert answers[name].encoding == "mono8"
            np.testing.assert_array_equal(pixels(answers[name]), expected[name])
        np.testing.assert_allclose(pixels(answers["depth/image"]), expected["depth"], rtol=1e-5)
        cloud = answers["points"]
        assert [field.name for field in cloud.fields] == ["x", "y", "z", "rgb", "label"]
        words = np.frombuffer(cloud.data, "<u4").reshape(48, 64, 5)
        np.testing.assert_array_equal(words[..., 4], expected["labels"])
        np.testing.assert_allclose(words[..., 2].copy().view("<f4"), expected["depth"], rtol=1e-5)
        if find_spec("vision_msgs") is None:
            assert node.log().count("vision_msgs is not installed") == 1

        # Relabelled in the running node; what does not fit is refused with the reason.
        (refused,) = probe.set_parameters(label_groups=["drivable: flor"])
        assert not refused.successful
        assert "did you mean 'floor'" in refused.reason
        (accepted,) = probe.set_parameters(label_groups=["drivable: floor, rug", "obstacle: *"])
        assert accepted.successful, accepted.reason
        (accepted,) = probe.set_parameters(void_label=300)
        assert accepted.successful, accepted.reason
        message = image_message(rgb_hwc, header(next(STAMPS)), "rgb8")
        (mask,) = probe.ask(
            message.header.stamp.sec,
            lambda: probe.send_image(message),
            collectors["segmentation/labels"],
        )
        assert mask.encoding == "mono16"
        names = LABEL_SETS["generated_rooms"].labels
        drivable = np.isin(expected["labels"], [names.index("floor"), names.index("rug")])
        np.testing.assert_array_equal(pixels(mask), np.where(drivable, 0, 1))


def test_the_model_changes_under_a_running_node(
    tmp_path: Path, domain: int, ros_environment: dict[str, str], model: Path
) -> None:
    depth_only = tmp_path / "depth_only.onnx"
    write_red_artefact(depth_only)
    with ExitStack() as stack:
        start(stack, tmp_path, ros_environment, "multitask_node", f"model:={model}")
        probe = stack.enter_context(Probe(domain, "/multitask_node"))
        depth = probe.collect(Image, "/multitask_node/depth/image")
        images = probe.publisher(Image, "/image")

        def answered() -> None:
            message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
            (answer,) = probe.ask(message.header.stamp.sec, lambda: images.publish(message), depth)
            np.testing.assert_allclose(pixels(answer), red_depth(random_rgb(), FOCAL_PX), rtol=1e-5)

        def topics() -> set[str]:
            return {name for name, _ in probe.node.get_topic_names_and_types()}

        answered()
        (refused,) = probe.set_parameters(model=str(tmp_path / "missing.onnx"))
        assert not refused.successful
        assert "missing.onnx" in refused.reason
        answered()
        (accepted,) = probe.set_parameters(model=str(depth_only))
        assert accepted.successful, accepted.reason
        answered()
        assert images.get_subscription_count() == 1
        wait_until(lambda: "/multitask_node/normals" not in topics(), "normals to go")
        (accepted,) = probe.set_parameters(model=str(model))
        assert accepted.successful, accepted.reason
        normals = probe.collect(Image, "/multitask_node/normals")
        message = image_message(random_rgb(), header(next(STAMPS)), "rgb8")
        probe.ask(message.header.stamp.sec, lambda: images.publish(message), depth, normals)

        off = SetBool.Request(data=False)
        answer = probe.call(SetBool, "/multitask_node/set_enabled", off)
        assert (answer.success, answer.message) == (True, "disabled")
        wait_until(lambda: images.get_subscription_count() == 0, "the subscription to go")
        assert probe.state() == "active"
        probe.call(SetBool, "/multitask_node/set_enabled", SetBool.Request(data=True))
        answered()


def test_cameras_are_answered_apart(
    tmp_path: Path, domain: int, ros_environment: dict[str, str], model: Path
) -> None:
    names = ("front", "left", "right")
    with ExitStack() as stack:
        start(
            stack,
            tmp_path,
            ros_environment,
            "segmentation_node",
            f"model:={model}",
            "cameras:=[front, left, right]",
        )
        probe = stack.enter_context(Probe(domain, "/segmentation_node"))
        masks = {
            name: probe.collect(Image, f"/segmentation_node/{name}/segmentation/labels")
            for name in names
        }
        reports = probe.diagnostics()
        rgbs = {name: random_rgb(seed=seed) for seed, name in enumerate(names)}
        # The right camera is silent, and the left one sends what cannot be used.
        for wanted in (("front", "left"), ("front",)):
            seconds = next(STAMPS)

            def send(wanted: tuple[str, ...] = wanted, seconds: int = seconds) -> None:
                for each in ("front", "left"):
                    message = image_message(rgbs[each], header(seconds, each), "rgb8")
                    if each not in wanted:
                        message.encoding = "nonsense"
                    probe.publisher(Image, f"/{each}/image").publish(message)

            answers = probe.ask(seconds, send, *(masks[each] for each in wanted))
            for each, answer in zip(wanted, answers, strict=True):
                assert answer.header == header(seconds, each)
                np.testing.assert_array_equal(
                    pixels(answer), multitask_answer(rgbs[each], FOCAL_PX)["labels"]
                )
        assert not masks["right"].messages

        def of_left(report: DiagnosticArray) -> dict[str, str]:
            statuses = {status.name.rpartition(": ")[2]: status for status in report.status}
            assert set(statuses) == set(names)
            return {value.key: value.value for value in statuses["left"].values}

        report = reports.wait_for(lambda report: int(of_left(report)["frames failed"]) >= 1)
        assert "nonsense" in of_left(report)["last error"]
