"""depth_node's life: start, transitions, models that do not load, nobody listening, the end."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from dense_perception.core.camera import Intrinsics
from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.prediction import DepthKind
from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess
from test.ros.conftest import NodeFactory
from test.support.artefacts import red_card, red_depth, write_red_artefact
from test.support.ros_probe import Probe, header, random_rgb, values_of, wait_until

pytestmark = pytest.mark.ros

STAMPS = itertools.count(100)


def picture() -> Image:
    return image_message(random_rgb(), header(next(STAMPS)), "rgb8")


def test_transitions(start_node: NodeFactory, probe: Probe, red_model: Path) -> None:
    node = start_node(model=red_model, autostart=False, ready=None)
    assert wait_until(probe.state, "the services") == "unconfigured"
    depth = probe.collect(Image, "/depth_node/depth/image")
    for label, state in [("configure", "inactive"), ("activate", "active")] * 2:
        assert probe.change_state(label)
        assert probe.state() == state
        if state == "active":
            message = picture()
            probe.ask(message.header.stamp.sec, lambda m=message: probe.send_image(m), depth)
            assert probe.change_state("deactivate")
            count = len(depth.messages)
            assert probe.change_state("cleanup")
            assert probe.state() == "unconfigured"
            probe.publisher(Image, "/image", match=False).publish(picture())
    assert len(depth.messages) == count
    assert not probe.change_state("activate")
    assert probe.change_state("shutdown")
    assert probe.state() == "finalized"
    assert node.stop() == 0


def test_a_model_that_does_not_load_leaves_the_node_alive(
    start_node: NodeFactory, probe: Probe, red_model: Path, tmp_path: Path
) -> None:
    node = start_node(model=tmp_path / "missing.onnx", ready="cannot configure")
    reports = probe.diagnostics()
    whole = red_model.read_bytes()
    broken = {
        "corrupt.onnx": whole[: len(whole) // 2],
        "empty.onnx": b"",
        "nonsense.onnx": b"\xff" * 5000,
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    wrong = tmp_path / "wrong.onnx"
    write_red_artefact(wrong, input=red_card(height=96).input)
    for name in ["missing.onnx", *broken, "wrong.onnx", "no_such_model"]:
        path = str(tmp_path / name) if name.endswith(".onnx") else name
        (result,) = probe.set_parameters(model=path)
        assert result.successful, result.reason
        assert not probe.change_state("configure")
        assert probe.state() == "unconfigured"
        report = reports.wait_for(
            lambda array, name=name: name.removesuffix(".onnx") in values_of(array)["last error"]
        )
        assert report.status[0].level == DiagnosticStatus.ERROR
    (result,) = probe.set_parameters(model=str(red_model))
    assert result.successful
    assert probe.change_state("configure")
    assert probe.change_state("activate")
    depth = probe.collect(Image, "/depth_node/depth/image")
    message = picture()
    probe.ask(message.header.stamp.sec, lambda: probe.send_image(message), depth)
    assert node.stop() == 0


def test_without_subscribers_nothing_is_inferred(
    start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    node = start_node(model=red_model)
    reports = probe.diagnostics()

    def unwanted() -> bool:
        probe.send_image(picture())
        return bool(
            reports.messages and int(values_of(reports.messages[-1])["frames nobody wanted"]) >= 5
        )

    wait_until(unwanted, "five frames that nobody wanted")
    assert values_of(reports.messages[-1])["frames answered"] == "0"
    assert node.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"backend": "caffe"}, "parameter backend is 'caffe', expected one of auto"),
        ({"max_depth_m": 10}, "expected a number with a point: write 10.0"),
    ],
)
def test_wrong_parameters_at_start_end_the_process_with_a_reason(
    start_node: NodeFactory, parameters: dict[str, object], complaint: str
) -> None:
    node = start_node(ready=None, **parameters)
    assert node.wait(15) == 1
    assert complaint in node.log()
    assert "Traceback" not in node.log()


def test_misspelt_parameter_is_named(start_node: NodeFactory, red_model: Path) -> None:
    node = start_node(model=red_model, thread=3)
    assert "thread is not a parameter of this node: did you mean threads?" in node.log()


def test_incompatible_qos_is_named_with_both_sides(
    start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    node = start_node(
        model=red_model, input_reliability="reliable", output_reliability="best_effort"
    )
    probe.publisher(Image, "/image", reliable=False, match=False)
    probe.collect(Image, "/depth_node/depth/image", reliable=True)
    node.wait_for_text("set the parameter input_reliability to best_effort")
    both = "this node subscribes reliable, volatile, published are /probe (best_effort, volatile)"
    assert both in node.log()
    node.wait_for_text("set the parameter output_reliability to reliable")


NOT_UNDERSTOOD = {
    "parameter without a value": (["--ros-args", "-p", "threads"], "override rule: '-p threads'"),
    "missing file": (["--ros-args", "--params-file", "/missing.yaml"], "file /missing.yaml"),
    "unknown flag": (["--ros-args", "--thread", "3"], "['--thread', '3']"),
    "no --ros-args": (["--backend", "openvino"], "the arguments are '--backend openvino'"),
    "wrong type of ROS' own": (
        ["--ros-args", "-p", "use_sim_time:=maybe"],
        "expecting type 'BOOL'",
    ),
}


def test_arguments_that_are_not_understood_are_named(
    ros_environment: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        nodes = {
            name: stack.enter_context(
                ChildProcess(
                    "dense_perception.ros.depth_node",
                    arguments,
                    log=tmp_path / str(number),
                    environment=ros_environment,
                )
            )
            for number, (name, (arguments, _)) in enumerate(NOT_UNDERSTOOD.items())
        }
        for name, node in nodes.items():
            assert node.wait(15) == 1, name
            assert NOT_UNDERSTOOD[name][1] in node.log()
            assert "Traceback" not in node.log()


def test_help_lists_the_parameters() -> None:
    command = [sys.executable, "-m", "dense_perception.ros.depth_node", "--help"]
    whole = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "default_hfov_deg: float = 60.0 (1 to 170)" in whole.stdout
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as unread:
        assert unread.stdout is not None
        assert unread.stderr is not None
        unread.stdout.close()  # as head does once it has enough
        assert unread.stderr.read() == b""
    assert unread.returncode == 0


def test_compressed_images(start_node: NodeFactory, probe: Probe, red_model: Path) -> None:
    start_node(model=red_model, image_transport="compressed", output_size="network")
    depth = probe.collect(Image, "/depth_node/depth/image")
    reports = probe.diagnostics()
    publisher = probe.publisher(CompressedImage, "/image/compressed")
    rgb_hwc = np.zeros((96, 128, 3), np.uint8)
    rgb_hwc[..., 0] = 200

    def compressed(extension: str) -> CompressedImage:
        data = cv2.imencode(extension, rgb_hwc[..., ::-1])[1].tobytes()
        message = CompressedImage(header=header(next(STAMPS)), format=extension[1:])
        message.data.frombytes(data)
        return message

    focal_px = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
    level_m = 9 / 255 * focal_px / 64
    for extension in (".png", ".jpg"):
        message = compressed(extension)
        (answer,) = probe.ask(
            message.header.stamp.sec, lambda m=message: publisher.publish(m), depth
        )
        assert answer.header == message.header
        assert (answer.width, answer.height) == (64, 48)
        expected_m = focal_px / 64 + 200 * level_m
        np.testing.assert_allclose(
            np.frombuffer(answer.data, np.float32), expected_m, atol=3 * level_m
        )

    truncated = compressed(".jpg")
    del truncated.data[len(truncated.data) // 2 :]
    publisher.publish(truncated)
    report = reports.wait_for(lambda array: values_of(array)["last error"])
    assert "JPEG picture is cut off" in values_of(report)["last error"]
    message = compressed(".jpg")
    probe.ask(message.header.stamp.sec, lambda: publisher.publish(message), depth)


def test_relative_depth_is_never_published_as_metric(
    start_node: NodeFactory, probe: Probe, tmp_path: Path
) -> None:
    model = tmp_path / "relative.onnx"
    write_red_artefact(model, depth=DepthSpec(DepthKind.RELATIVE_INVERSE))
    start_node(model=model)
    relative = probe.collect(Image, "/depth_node/depth/relative")
    color = probe.collect(Image, "/depth_node/depth/color")
    rgb_hwc = random_rgb()
    (answer, picture_for_eyes) = probe.ask(
        5, lambda: probe.send_image(image_message(rgb_hwc, header(5), "rgb8")), relative, color
    )
    focal_px = Intrinsics.from_fov(64, 48, 60.0).mean_focal_px
    values_hw = np.frombuffer(answer.data, np.float32).reshape(48, 64)
    np.testing.assert_allclose(values_hw, red_depth(rgb_hwc, focal_px), rtol=1e-5)
    assert picture_for_eyes.header == answer.header
    topics = {name for name, _ in probe.node.get_topic_names_and_types()}
    assert "/depth_node/depth/image" not in topics
    assert "/depth_node/points" not in topics


def test_the_newest_of_a_flood_is_answered(
    start_node: NodeFactory, probe: Probe, red_model: Path
) -> None:
    start_node(model=red_model, input_reliability="reliable")
    depth = probe.collect(Image, "/depth_node/depth/image")
    reports = probe.diagnostics()
    large = np.zeros((1080, 1920, 3), np.uint8)
    first = picture()
    probe.ask(first.header.stamp.sec, lambda: probe.send_image(first), depth)
    flood = [image_message(large, header(next(STAMPS)), "rgb8") for _ in range(30)]
    for message in flood:
        probe.send_image(message)
    last = flood[-1].header.stamp.sec
    depth.wait_for(lambda message: message.header.stamp.sec == last)
    stamps = [message.header.stamp.sec for message in depth.messages]
    assert stamps == sorted(stamps)
    # A busy subscriber may lose an answer that was published, never get one that was not.
    report = reports.wait_for(
        lambda array: int(values_of(array)["frames answered"]) >= len(depth.messages)
    )
    counts = {
        name: int(values_of(report)[f"frames {name}"])
        for name in ("received", "answered", "dropped", "nobody wanted", "failed")
    }
    assert counts["failed"] == 0
    rest = counts["answered"] + counts["dropped"] + counts["nobody wanted"]
    assert counts["received"] == rest


@pytest.mark.parametrize("library", ["_multiarray_umath", "_rclpy_pybind11", "librmw_fastrtps"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_start_ends_it_quietly(
    start_node: NodeFactory, red_model: Path, library: str, sent: signal.Signals
) -> None:
    """While compiled modules are imported a KeyboardInterrupt would look like one missing."""
    node = start_node(model=red_model, ready=None)
    wait_until(lambda: library in Path(f"/proc/{node.pid}/maps").read_text(), library)
    node.stop(sent)
    assert node.returncode in (0, -sent)
    assert not any(word in node.log() for word in ("core dumped", "Traceback", "Error"))
