"""Things found by the network in the frame's own pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import CardError, InputError
from dense_perception.core.prediction import Instances
from dense_perception.runtime.instances import restore_instances
from dense_perception.runtime.perceiver import Perceiver
from test.support.instance_artefacts import colour_answer, colour_card, write_colour_artefact

RED, BLUE = (6, 4, 20, 10), (30, 20, 64, 40)


def picture(scale: int = 1, *, red: int = 200, blue: int = 250) -> np.ndarray:
    """48x64 times ``scale``: a red thing and a blue one that touches the right border."""
    rgb = np.zeros((48 * scale, 64 * scale, 3), np.uint8)
    for (left, top, right, bottom), channel, value in ((RED, 0, red), (BLUE, 2, blue)):
        rgb[top * scale : bottom * scale, left * scale : right * scale, channel] = value
    return rgb


def things(perceiver: Perceiver, rgb: np.ndarray, *wanted: str) -> Instances:
    (answer,) = perceiver.perceive([Frame(rgb)], wanted or None)
    assert answer.instances is not None
    return answer.instances


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("panoptic", [False, True])
def test_the_graph_and_the_frame_agree(tmp_path: Path, backend: str, panoptic: bool) -> None:
    card = write_colour_artefact(
        tmp_path / "a.onnx", colour_card(panoptic=panoptic, depth=panoptic)
    )
    rgb = picture()
    with Perceiver.load(tmp_path / "a.onnx", backend=backend) as perceiver:
        got = perceiver.backend.infer({"image": np.stack([rgb, rgb[::-1]])})
        for index, shown in enumerate((rgb, rgb[::-1])):
            want = colour_answer(shown)
            assert set(got) <= set(want)
            for name, array in got.items():
                np.testing.assert_allclose(array[index], want[name], rtol=1e-6, err_msg=name)
        both = perceiver.perceive([Frame(rgb), Frame(picture(2))])
    assert "masks" not in card.outputs
    for answer, scale in zip(both, (1, 2), strict=True):
        found = answer.instances
        assert found is not None
        assert found.names == ("person", "chair")
        np.testing.assert_allclose(found.boxes_n4, np.array([BLUE, RED]) * scale, atol=1e-4)
        assert found.ids_hw is not None
        np.testing.assert_array_equal(found.ids_hw[10 * scale :, : 20 * scale], 0)
        assert (found.ids_hw[4 * scale : 10 * scale, 6 * scale : 20 * scale] == 2).all()
        assert found.masks_nhw is None
        if panoptic:
            assert answer.labels is not None
            np.testing.assert_array_equal(answer.labels.values_hw == 3, found.ids_hw == 1)


def test_what_is_wanted_decides_what_is_given(tmp_path: Path) -> None:
    write_colour_artefact(tmp_path / "a.onnx", colour_card())
    with Perceiver.load(tmp_path / "a.onnx", backend="onnxruntime") as perceiver:
        assert things(perceiver, picture(), "instances").ids_hw is None
        assert things(perceiver, picture(), "instance_ids").ids_hw is not None
        masks = things(perceiver, picture(2), "masks").masks_nhw
        assert masks is not None
        assert masks.shape == (2, 96, 128)
        np.testing.assert_array_equal(masks[1] > 127, picture(2)[..., 0] > 0)
        with pytest.raises(InputError, match=r"gives .*'instances', 'instance_ids', 'masks'"):
            things(perceiver, picture(), "labels")
        empty = things(perceiver, np.zeros((48, 64, 3), np.uint8))
    assert (len(empty), empty.names) == (0, ())
    assert empty.ids_hw is not None
    assert not empty.ids_hw.any()


@pytest.mark.parametrize("size_hw", [(40, 120), (120, 40)])
def test_a_letterbox_gives_boxes_of_the_picture(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    write_colour_artefact(tmp_path / "a.onnx", colour_card(resize="letterbox"))
    rgb = np.zeros((*size_hw, 3), np.uint8)
    rgb[:20, :40, 0] = 255
    with Perceiver.load(tmp_path / "a.onnx", backend="onnxruntime") as perceiver:
        found = things(perceiver, rgb)
        smaller = Perceiver(
            perceiver.card, perceiver.backend, perceiver.selection, max_output_side=60
        )
        half = things(smaller, rgb)
    # A pixel of the network is 2 or 3 of the picture, and one more may be half covered.
    np.testing.assert_allclose(found.boxes_n4, [[0, 0, 40, 20]], atol=3)
    np.testing.assert_allclose(half.boxes_n4 * 2, found.boxes_n4, atol=1e-4)
    assert found.ids_hw is not None
    assert found.ids_hw.shape == size_hw
    assert found.ids_hw[:17, :37].all()
    assert not found.ids_hw[24:].any()


def lists(card: ModelCard, **rows: object) -> dict[str, np.ndarray]:
    answer = {k: v for k, v in colour_answer(picture()).items() if k not in ("depth", "masks")}
    for name, value in rows.items():
        answer[name][: len(value)] = value  # type: ignore[arg-type]
    return answer


def test_rows_that_show_nothing_are_left_out_and_ids_follow() -> None:
    card = colour_card(resize="letterbox")
    # Of a picture of 64x24 the network's rows 12 to 36 are the picture: the first box is outside.
    outputs = lists(card, boxes=[[0, 0, 9, 11], [6, 14, 20, 50]])
    found, rest = restore_instances(outputs, card, (64, 24), (64, 24))
    assert set(rest) == {"labels", "confidence"}
    assert found is not None
    assert found.names == ("chair",)
    np.testing.assert_array_equal(found.boxes_n4, [[6, 2, 20, 24]])
    assert found.ids_hw is not None
    assert found.ids_hw.shape == (24, 64)
    assert set(np.unique(found.ids_hw)) <= {0, 1}
    outputs = lists(card, boxes=[[float("nan"), 0, 9, 30]])
    found, _ = restore_instances(outputs, card, (64, 48), (64, 48))
    assert found is not None
    assert found.names == ("chair",), "a box that is not a number is no thing"
    outputs["instance_ids"][0, 0] = 200
    found, _ = restore_instances(outputs, card, (64, 48), (64, 48))
    assert found is not None
    assert found.ids_hw is not None
    assert found.ids_hw[0, 0] == 0, "an id of no row is nobody's"


def test_nothing_is_a_view_of_the_runtimes_memory() -> None:
    card = colour_card()
    outputs = colour_answer(picture())
    found, _ = restore_instances(outputs, card, (64, 48), (64, 48))
    assert found is not None
    arrays = (found.boxes_n4, found.scores_n, found.classes_n, found.ids_hw, found.masks_nhw)
    for mine in arrays:
        for theirs in outputs.values():
            assert mine is not None
            assert not np.shares_memory(mine, theirs)


def test_a_graph_without_its_lists_is_named(tmp_path: Path) -> None:
    card = colour_card(masks=False)
    write_colour_artefact(tmp_path / "a.onnx", card)
    assert card.instances is not None
    with Perceiver.load(tmp_path / "a.onnx", backend="onnxruntime") as perceiver:
        for changed, named in (
            (replace(card.instances, masks=True), "promises .*instance_ids.*masks"),
            (replace(card.instances, count=7), r"boxes: float32 \(\?, 4, 4\).*promises.*\(N, 7, 4"),
        ):
            wrong = replace(card, instances=changed)
            with pytest.raises(CardError, match=named):
                Perceiver(wrong, perceiver.backend, perceiver.selection)


def test_run_writes_things_their_ids_and_what_they_look_like(tmp_path: Path) -> None:
    write_colour_artefact(tmp_path / "model.onnx", colour_card())
    cv2.imwrite(str(tmp_path / "photo.png"), picture()[..., ::-1])
    words = ["run", str(tmp_path / "model.onnx"), "--input", str(tmp_path / "photo.png")]
    words += ["--output", str(tmp_path / "out"), "--quiet", "--backend", "onnxruntime"]
    assert main(words) == 0
    rows = json.loads((tmp_path / "out" / "instances" / "photo.json").read_text())
    assert [(row["id"], row["class"], row["box"]) for row in rows] == [
        (1, "person", [*BLUE]),
        (2, "chair", [*RED]),
    ]
    ids_hw = cv2.imread(str(tmp_path / "out/instance_ids/photo.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ids_hw, colour_answer(picture())["instance_ids"])
    assert cv2.imread(str(tmp_path / "out/instances_overlay/photo.jpg")).shape == (48, 64, 3)
