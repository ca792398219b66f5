"""instance_node as a real process, on a model whose things are known in closed form."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess
from test.support.instance_artefacts import colour_answer, colour_card, write_colour_artefact
from test.support.ros_probe import Probe, header

pytestmark = pytest.mark.ros


def picture() -> np.ndarray:
    rgb_hwc = np.zeros((48, 64, 3), np.uint8)
    rgb_hwc[4:10, 6:20, 0], rgb_hwc[20:40, 30:64, 2] = 200, 250
    return rgb_hwc


def classes(message: Any) -> list[str]:
    return [each.results[0].hypothesis.class_id for each in message.detections]


def test_all_messages_of_a_frame_agree_and_settings_change_them_live(
    tmp_path: Path, vision_msgs: None, domain: int, ros_environment: dict[str, str]
) -> None:
    from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

    write_colour_artefact(tmp_path / "colour.onnx", colour_card(panoptic=True, depth=True))
    arguments = ["--ros-args", "-p", "backend:=onnxruntime", "-p", "threads:=1"]
    with ExitStack() as stack:
        node = ChildProcess(
            "dense_perception.ros.instance_node",
            arguments,
            log=tmp_path / "log",
            environment=ros_environment,
        )
        stack.enter_context(node)
        node.wait_for_text("no model is named, expected a model's name", failure="Traceback")
        probe = stack.enter_context(Probe(domain, "/instance_node"))
        (refused,) = probe.set_parameters(instance_classes="chair")
        assert not refused.successful
        (done,) = probe.set_parameters(model=str(tmp_path / "colour.onnx"))
        assert done.successful, done.reason
        probe.change_state("configure")
        probe.change_state("activate")
        kinds = {
            "detections": Detection2DArray,
            "detections_3d": Detection3DArray,
            "ids": Image,
            "panoptic": Image,
            "overlay": Image,
        }
        below = "/instance_node/instances"
        collectors = {name: probe.collect(kind, f"{below}/{name}") for name, kind in kinds.items()}
        packed = probe.collect(CompressedImage, f"{below}/overlay/compressed")
        markers = probe.collect(MarkerArray, f"{below}/markers")
        rgb_hwc = picture()

        def ask(seconds: int) -> dict[str, Any]:
            message = image_message(rgb_hwc, header(seconds, "head_optical"), "rgb8")
            answers = probe.ask(
                seconds, lambda: probe.send_image(message), *collectors.values(), packed
            )
            for answer in answers:
                assert answer.header == message.header
            return dict(zip(collectors, answers, strict=False))

        answer = ask(100)
        want = colour_answer(rgb_hwc)
        assert classes(answer["detections"]) == classes(answer["detections_3d"])
        assert classes(answer["detections"]) == ["person", "chair"]
        ids_hw = np.frombuffer(answer["ids"].data, "<u2").reshape(48, 64)
        np.testing.assert_array_equal(ids_hw, want["instance_ids"])
        coded_hw = np.frombuffer(answer["panoptic"].data, "<i4").reshape(48, 64)
        np.testing.assert_array_equal(coded_hw, want["labels"].astype(int) * 65536 + ids_hw)
        place = answer["detections_3d"].detections[0].results[0].pose.pose.position
        assert place.z == 2
        drawn = markers.wait()[-1].markers
        assert {each.ns for each in drawn} == {"", "boxes", "names"}
        assert {each.id for each in drawn if each.ns} == {1, 2}
        info = probe.collect(LabelInfo, "/instance_node/segmentation/label_info", latched=True)
        named = {each.class_id: each.class_name for each in info.wait()[-1].class_map}
        assert named[int(coded_hw[30, 40]) >> 16] == "person"

        for seconds, changes, names in (
            (101, {"score_threshold": 0.9}, ["person"]),
            (102, {"score_threshold": 0.1, "instance_classes": ["chair"]}, ["chair"]),
            (103, {"instance_classes": [""], "max_instances": 1}, ["person"]),
        ):
            assert all(each.successful for each in probe.set_parameters(**changes))
            answer = ask(seconds)
            assert classes(answer["detections"]) == names
            ids_hw = np.frombuffer(answer["ids"].data, "<u2").reshape(48, 64)
            assert ids_hw.max() == 1
        (refused,) = probe.set_parameters(instance_classes=["chiar"])
        assert "did you mean 'chair'" in refused.reason
        assert "Traceback" not in node.log()
