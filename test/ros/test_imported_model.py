"""ONNX files of others, imported and given to a node by their cards."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sensor_msgs.msg import Image

from dense_perception.cli import main
from dense_perception.core.card import ModelCard
from dense_perception.export import compare
from dense_perception.ros.convert import image_message
from test.ros.conftest import NodeFactory
from test.support.foreign_cases import (
    KINDS,
    error_hw,
    foreign_outputs,
    import_case,
    picture,
    truth,
)
from test.support.foreign_graphs import write_plain
from test.support.ros_probe import DEADLINE_S, Probe, header, random_rgb

pytestmark = pytest.mark.ros


def first_output(file: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": pixels[None].astype(np.float32)})[0][0])


def test_a_node_answers_as_the_foreign_file_does(
    start_node: NodeFactory, probe: Probe, tmp_path: Path
) -> None:
    """Of a picture in a letterbox, whose padding does not come back."""
    metadata = {"author": "Ultralytics", "task": "semantic", "names": "{0: 'road', 1: 'car'}"}
    file = write_plain(tmp_path / "net.onnx", classes=2, stride=1, metadata=metadata)
    assert main(["import", str(file), "--output", str(tmp_path / "models"), "--quiet"]) == 0
    start_node(node="segmentation_node", model=tmp_path / "models" / "net.yaml")
    labels = probe.collect(Image, "/segmentation_node/segmentation/labels")
    rgb_hwc = random_rgb(32, 48)
    message = image_message(rgb_hwc, header(7), "rgb8")
    (answer,) = probe.ask(7, lambda: probe.send_image(message), labels)

    boxed = np.full((48, 64, 3), 114, np.float32)
    boxed[:, 16:48] = rgb_hwc
    want_hw = first_output(file, boxed.transpose(2, 0, 1) / 255).argmax(axis=0)[:, 16:48]
    assert (answer.width, answer.height) == (32, 48)
    got_hw = np.frombuffer(answer.data, np.uint8).reshape(48, 32)
    assert (got_hw == want_hw).mean() > 0.999


IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
DEPTHS: dict[str, tuple[dict[str, object], str, Callable[[np.ndarray], np.ndarray]]] = {
    "nhwc_gray": (
        {"layout": "NHWC", "colours": 1},
        "--depth-kind metric --pixels unit",
        lambda rgb_hwc: (rgb_hwc / 255 @ [0.299, 0.587, 0.114])[..., None],
    ),
    "nchw_old_opset": (
        {"opset": 12},
        "--depth-kind metric",
        lambda rgb_hwc: ((rgb_hwc / 255 - IMAGENET[0]) / IMAGENET[1]).transpose(2, 0, 1),
    ),
}


@pytest.mark.parametrize("kind", DEPTHS)
def test_a_node_publishes_foreign_depth_in_metres(
    start_node: NodeFactory, probe: Probe, tmp_path: Path, kind: str
) -> None:
    how, options, prepared = DEPTHS[kind]
    file = write_plain(
        tmp_path / "net.onnx", classes=1, ending="sigmoid", stride=1, output="depth", **how
    )  # type: ignore[arg-type]
    words = ["import", str(file), "--output", str(tmp_path / "models"), "--quiet"]
    assert main([*words, *options.split()]) == 0
    start_node(node="depth_node", model=tmp_path / "models" / "net.yaml")
    depth = probe.collect(Image, "/depth_node/depth/image")
    rgb_hwc = random_rgb(64, 48)
    message = image_message(rgb_hwc, header(7), "rgb8")
    (answer,) = probe.ask(7, lambda: probe.send_image(message), depth)
    got_hw = np.frombuffer(answer.data, np.float32).reshape(48, 64)
    want_hw = first_output(file, prepared(rgb_hwc)).reshape(48, 64)
    assert answer.encoding == "32FC1"
    assert np.isnan(got_hw[want_hw < 5e-4]).all(), "nearer than the card's range"
    inside = want_hw > 2e-3
    assert inside.mean() > 0.3
    assert np.abs(got_hw - want_hw)[inside].max() < 1e-3


@pytest.mark.parametrize(
    ("node", "topic", "kinds"),
    [
        ("depth_node", "depth/relative", [n for n, case in KINDS.items() if case.kind == "depth"]),
        (
            "segmentation_node",
            "segmentation/labels",
            [n for n, case in KINDS.items() if case.kind != "depth"],
        ),
    ],
)
def test_a_node_answers_as_every_kind_does(
    start_node: NodeFactory,
    probe: Probe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    node: str,
    topic: str,
    kinds: list[str],
) -> None:
    """One node, which changes from one model to the next."""
    # What other runtimes say is tested where they are.
    monkeypatch.setattr(compare, "installed_backends", lambda: ["onnxruntime"])
    probe.target = f"/{node}"
    answers = probe.collect(Image, f"/{node}/{topic}")
    second = 0
    for name in kinds:
        (tmp_path / name).mkdir()
        file, card_path = import_case(name, tmp_path / name)
        card = ModelCard.from_yaml(card_path)
        size = card.input.height, card.input.width
        rgb_hwc = picture(*size)
        want = truth(KINDS[name], foreign_outputs(file, KINDS[name], rgb_hwc), size).numpy()
        if second == 0:
            start_node(node=node, model=card_path)
        else:
            (result,) = probe.set_parameters(model=str(card_path))
            assert result.successful, result.reason
        limit = 1e-4 if card.precision == "fp32" else 2e-2
        deadline, error = time.monotonic() + DEADLINE_S, np.inf
        # Until the new model is there the old one goes on.
        while error > limit and time.monotonic() < deadline:
            second += 1
            message = image_message(rgb_hwc, header(second), "rgb8")
            (answer,) = probe.ask(second, lambda m=message: probe.send_image(m), answers)
            kind = np.float32 if answer.encoding == "32FC1" else np.uint8
            error = error_hw(want, np.frombuffer(answer.data, kind).reshape(size)).max()
        assert error <= limit, name
