"""The benchmarks of nodes: their bookkeeping by hand, and short runs of the real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception.benchmarks.nav2 import ApproximateSynchroniser, Nav2Consumer
from dense_perception.benchmarks.outputs import record_answer
from dense_perception.core.card import ModelCard
from dense_perception.ros.convert import CloudWriter, image_message
from dense_perception.runtime.perceiver import Perceiver
from test.support.multitask_artefacts import multitask_answer, write_multitask_artefact
from test.support.ros_probe import header, random_rgb

STREAM = ["--width", "160", "--height", "120", "--rate", "10", "--json"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bytes.onnx"
    write_multitask_artefact(path)
    return path


def command(kind: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dense_perception.cli",
            "benchmark",
            kind,
            *map(str, arguments),
            *STREAM,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "returncode": done.returncode}


def at(nanoseconds: int) -> Any:
    message = image_message(np.zeros((1, 1), np.uint8), header(1), "mono8")
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(nanoseconds, 10**9)
    return message


def test_synchroniser_joins_what_is_near_and_uses_nothing_twice() -> None:
    sets: list[tuple[int, int]] = []
    matching = ApproximateSynchroniser(
        ["a", "b"],
        slop_ns=100,
        matched=lambda found: sets.append(
            (found["a"].header.stamp.nanosec, found["b"].header.stamp.nanosec)
        ),
        depth=3,
    )
    for topic, stamp in [("a", 1000), ("b", 1101), ("a", 1050)]:
        matching.add(topic, at(stamp))
    assert sets == [(1050, 1101)]  # 1000 is one too far, and too old afterwards
    matching.add("b", at(1102))
    assert len(sets) == 1
    for stamp in (2000, 3000, 4000, 5000):
        matching.add("a", at(stamp))
    matching.add("b", at(2000))  # its partner was pushed out by the fourth
    matching.add("b", at(4010))
    assert sets[1:] == [(4000, 4010)]


def nav2_set() -> dict[str, Any]:
    from dense_perception.core.camera import Intrinsics

    labels_hw = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64).astype(np.uint8)
    head = header(7)
    return {
        "labels": image_message(labels_hw, head, "mono8"),
        "confidence": image_message(labels_hw, head, "mono8"),
        "points": CloudWriter().cloud(
            np.ones((48, 64), np.float32),
            Intrinsics.from_fov(64, 48, 60.0),
            head,
            labels_hw=labels_hw,
        ),
    }


def test_consumer_refuses_what_does_not_fit() -> None:
    consumer = Nav2Consumer(needs_label_info=True)
    consumer.take(nav2_set())
    assert consumer.refused == {"no LabelInfo yet": 1}
    assert not consumer.accepted
    consumer.take_label_info(None)
    consumer.take(nav2_set())
    assert consumer.accepted == {7_123_456_789}

    smaller, later, relabelled, plain = nav2_set(), nav2_set(), nav2_set(), nav2_set()
    smaller["confidence"] = image_message(np.zeros((24, 64), np.uint8), header(7), "mono8")
    later["points"].header = header(8)
    relabelled["labels"].data[16 * 64 + 16] ^= 1
    plain["points"].fields.pop()
    for number, (broken, reason) in enumerate(
        [
            (smaller, "sizes [(64, 48), (64, 24), (64, 48)]"),
            (later, "differ in their headers"),
            (relabelled, "labels are not the mask's"),
            (plain, "no field label"),
        ],
        start=2,
    ):
        consumer.take(broken)
        assert len(consumer.refused) == number
        assert reason in list(consumer.refused)[-1]
    assert len(consumer.accepted) == 1


def test_recorded_model_repeats_its_answer(tmp_path: Path, model: Path) -> None:
    rgb_hwc = random_rgb(seed=5)
    path = tmp_path / "recorded.onnx"
    record_answer(str(model), path, rgb_hwc)
    assert ModelCard.from_onnx(path).outputs == ModelCard.from_onnx(model).outputs
    with Perceiver.load(path, backend="onnxruntime") as perceiver:
        answer = perceiver(random_rgb(seed=6))
    expected = multitask_answer(rgb_hwc, focal_px=64.0)
    assert answer.depth is not None
    assert answer.labels is not None
    assert answer.normals is not None
    np.testing.assert_allclose(answer.depth.values_hw, expected["depth"], rtol=1e-5)
    np.testing.assert_array_equal(answer.labels.values_hw, expected["labels"])
    np.testing.assert_allclose(answer.normals.values_hwc, expected["normals"], atol=1e-6)


@pytest.mark.ros
def test_nav2_benchmark(vision_msgs: None, model: Path) -> None:
    result = command("nav2", "--model", model, "--seconds", 3)
    assert result["label_info"] == "required"
    assert result["sent"] == 30
    assert 15 < result["answered"] <= 30
    assert result["accepted"] == result["answered"]
    assert not result["refused"]
    assert result["stages_ms"]["publish"] > 0
    assert result["returncode"] == 0


@pytest.mark.slow
@pytest.mark.ros
def test_cameras_benchmark(model: Path) -> None:
    """The camera that is killed stops and comes back; the counts agree with the stream."""
    result = command("cameras", "--model", model, "--seconds", 4, "--cameras", 2)
    assert result["killed_came_back"]
    for layout in ("one_node", "separate_nodes"):
        stays, goes = result[layout]["cameras"]
        assert all(3 < rate < 13 for rate in stays["answers_hz"])
        before, gone, back = goes["answers_hz"]
        assert before > 3
        assert gone < 1
        assert back > 3
        assert goes["sent"] is None
        assert goes["longest_gap_ms"] > 1500
        assert 70 < stays["newest_percent"] <= 100
    assert [result[each]["nodes"] for each in ("one_node", "separate_nodes")] == [1, 2]
    assert result["memory_ratio"] > 1


@pytest.mark.ros
def test_outputs_benchmark(model: Path) -> None:
    result = command("outputs", "--model", model, "--seconds", 0.3)
    names = {cost["output"] for cost in result["outputs"]}
    assert {"depth/image", "segmentation/labels", "points", "normals/color", "edges"} <= names
    assert "segmentation/label_info" not in names  # not sent with each frame
    assert all(cost["answered_percent"] > 50 for cost in result["outputs"])
    everything, nobody_ms = result["all_outputs"], result["nobody_ms"]
    assert everything["cpu_ms"] > 0
    assert everything["beyond_ms"] == pytest.approx(everything["cpu_ms"] - nobody_ms)
