"""Models of things against COCO's files, the bad entries among them named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.camera import Intrinsics
from dense_perception.core.card_specs import SegmentationSpec
from dense_perception.core.errors import InputError
from dense_perception.data.coco_annotations import read_annotations, read_segments
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard
from dense_perception.evaluation.corpus_things import annotated_things
from dense_perception.evaluation.things import ThingsJudge, evaluate_things
from dense_perception.evaluation.true_things import true_things
from dense_perception.metrics.detection import Rle, mask_of_rle, rle_of_mask
from dense_perception.runtime.perceiver import Perceiver
from test.support.instance_artefacts import CLASSES, colour_card, write_colour_artefact

CATEGORIES = [
    {"id": 5, "name": "Chair"},
    {"id": 7, "name": "table"},
    {"id": 9, "name": "person"},
    {"id": 11, "name": "giraffe"},
]
RED, BLUE = (6, 4, 20, 10), (30, 20, 64, 40)


def picture(red: int, blue: int) -> np.ndarray:
    rgb_hwc = np.zeros((48, 64, 3), np.uint8)
    for (left, top, right, bottom), channel, value in ((RED, 0, red), (BLUE, 2, blue)):
        rgb_hwc[top:bottom, left:right, channel] = value
    return rgb_hwc


def polygon(box: tuple[int, int, int, int]) -> list[list[int]]:
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number: int, image: int, category: int, box: tuple[int, ...]) -> dict[str, Any]:
    left, top, right, bottom = box
    sides = [left, top, right - left, bottom - top]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": sides,
        "area": sides[2] * sides[3],
        "iscrowd": 0,
        "segmentation": polygon((left, top, right, bottom)),
    }


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Two pictures with their things; the model finds all of them, and nothing else."""
    for name, rgb_hwc in (("a", picture(200, 250)), ("b", picture(0, 250)), ("c", picture(0, 0))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), rgb_hwc[..., ::-1])
    return {
        "images": [
            {"id": n, "file_name": f"{name}.png", "width": 64, "height": 48}
            for n, name in enumerate("abc", start=1)
        ],
        "categories": CATEGORIES,
        "annotations": [
            annotation(1, 1, 5, RED),
            annotation(2, 1, 9, BLUE),
            annotation(3, 2, 9, BLUE),
        ],
    }


def written(folder: Path, data: dict[str, Any], name: str = "things.json") -> Path:
    (folder / name).write_text(json.dumps(data))
    return folder / name


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_colour_artefact(tmp_path / "colour.onnx", colour_card())
    return tmp_path / "colour.onnx"


def test_the_command_writes_table_json_and_page(
    tmp_path: Path, data: dict[str, Any], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data["annotations"][1]["iscrowd"] = 1
    data["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": [0, 48 * 64]}
    words = ["evaluate", str(model), "--images", str(tmp_path), "--backend", "onnxruntime"]
    words += ["--instances", str(written(tmp_path, data)), "--out", str(tmp_path / "report")]
    assert main(words) == 1, "the giraffe is named"
    out = capsys.readouterr()
    assert "3 pictures" in out.out
    assert out.out.count("1.0000") >= 6
    assert "1 class is the truth's alone and does not count: giraffe" in out.err
    page = (tmp_path / "report" / "report.html").read_text()
    assert "giraffe" in page
    assert "AP50" in page
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["models"][0]["masks"]["ap"] == 1
    assert document["models"][0]["boxes"]["by_class"] == {"Chair": 1, "person": 1}
    assert main(words) == 1, "its own report is replaced"
    (tmp_path / "report" / "frames.csv").touch()
    (tmp_path / "report" / "report.json").write_text('{"figures": {}}')
    capsys.readouterr()
    assert main(words) == 2
    assert "has report.json, report.html, frames.csv of something else" in capsys.readouterr().err
    assert main([*words, "--multi-scale"]) != 0
    assert "--multi-scale has no use here: --instances compares" in capsys.readouterr().err


def test_what_is_missed_and_what_is_false_lower_the_figures(
    tmp_path: Path, data: dict[str, Any], model: Path
) -> None:
    data["annotations"][2] = annotation(3, 2, 7, (0, 0, 20, 20))
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        report = evaluate_things(perceiver, read_annotations(written(tmp_path, data)), tmp_path)
    assert report.boxes is not None
    # Chair 1; table 0; person: right first, then a false one of the same score: 1.
    assert report.boxes.by_class == {"Chair": 1, "table": 0, "person": 1}
    assert report.boxes.ap == pytest.approx(2 / 3)


def test_every_bad_entry_is_named_and_the_others_count(
    tmp_path: Path, data: dict[str, Any], model: Path
) -> None:
    good = data["annotations"]
    outside = annotation(10, 2, 5, (-8, -8, 4, 4))
    data["annotations"] = [
        *good,
        outside,
        annotation(2, 3, 5, (0, 0, 9, 9)),
        annotation(12, 1, 99, RED),
        annotation(13, 44, 5, RED),
        annotation(14, 1, 5, (9, 9, 9, 12)),
        {**annotation(15, 1, 5, RED), "image_id": [1]},
        {**annotation(16, 1, 5, RED), "bbox": "wide"},
        "annotation",
    ]
    data["images"] += [
        {"id": 1, "file_name": "again.png", "width": 4, "height": 4},
        {"id": 8, "file_name": "../secret.png", "width": 4, "height": 4},
        {"id": 9, "file_name": "missing.png", "width": 64, "height": 48},
        {"id": 10, "file_name": ".", "width": 64, "height": 48},
        {"id": "x"},
    ]
    data["categories"] = [*CATEGORIES, {"id": 5, "name": "again"}, {"id": 12}]
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        report = evaluate_things(perceiver, read_annotations(written(tmp_path, data)), tmp_path)
    text = "\n".join(report.problems)
    for named in (
        "annotation 2 is there twice: both count",
        "annotation 12 has the category 99, which the file does not name",
        "annotation 13 is of the image 44, not in the file",
        "annotation 14 has the box",
        "annotation 15 is of the image [1]",
        "annotation 16 has the box 'wide'",
        "annotation 'annotation' is no mapping",
        "1 annotation reaches outside of the picture (10)",
        "image 1 (again.png) is there twice",
        "outside of the pictures' folder",
        "image 10 has no file_name",
        "image {'id': 'x'} has no id that is a whole number",
        "category 5 (again) is there twice",
        "category {'id': 12} has no id and name",
        "\nmissing.png: ",
    ):
        assert text.count(named) == 1, named
    assert report.pictures == 3
    assert report.boxes is not None
    assert report.masks is not None
    # Chairs: one of three is found.
    assert report.boxes.by_class["Chair"] == pytest.approx(34 / 101)
    assert report.masks.by_class["Chair"] == pytest.approx(34 / 101)


BAD_MASKS: list[tuple[object, str]] = [
    ("rle?", "is 'rle?', expected polygons or run lengths"),
    ([[0, 0, 9, 0, 9, 9, 0]], "has a polygon of 7 numbers, expected x and y of each corner"),
    ([[0, 0, 9, 0]], "has the polygon [0, 0, 9, 0], expected three corners or more"),
    ([[0, 0, 9, 0, 9, 1e8]], "has the coordinate 100000000.0"),
    ([[0, 0, 9, 0, 9, float("nan")]], "has the coordinate nan"),
    ([[70, 50, 90, 50, 90, 60]], "has no pixel in the picture"),
    ({"size": [9, 9], "counts": [81]}, "is of the size [9, 9], expected [48, 64]"),
    ({"size": [48, 64], "counts": [0.5, 3071.5]}, "has the run length 0.5"),
    ({"size": [48, 64], "counts": [-4, 3076]}, "has the run length -4"),
    ({"size": [48, 64], "counts": [10, None, 20]}, "has the run length None"),
    ({"size": [48, 64], "counts": [7, 8]}, "has run lengths of 15 pixels, expected 3072"),
    ({"size": [48, 64], "counts": "zzzz"}, "has the run lengths 'zzzz', which no encoder writes"),
    ({"size": [48, 64], "counts": "0P"}, "has the run lengths '0P', which are cut off"),
    ({"size": [48, 64]}, "has the run lengths None"),
]


def test_a_thing_without_a_usable_mask_is_lost_for_masks_alone(
    tmp_path: Path, data: dict[str, Any], model: Path
) -> None:
    """Each stands where nothing is, but the last, which the model finds all the same."""
    empty = (40, 0, 50, 9)
    bad = [given for given, _ in BAD_MASKS]
    data["annotations"] += [
        {**annotation(20 + n, 3, 7, empty), "segmentation": given} for n, given in enumerate(bad)
    ]
    del data["annotations"][2]["segmentation"]
    truth = read_annotations(written(tmp_path, data))
    lines = [line for line in truth.problems if "the segmentation of annotation" in line]
    for number, ((_, why), line) in enumerate(zip(BAD_MASKS, lines, strict=True)):
        assert f"the segmentation of annotation {20 + number} {why}" in line
    assert any("1 annotation without a segmentation (3)" in line for line in truth.problems)
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        report = evaluate_things(perceiver, truth, tmp_path)
    (line,) = [line for line in report.problems if "counts neither way for masks" in line]
    assert f"{len(bad) + 1} things without a mask: the box counts alone" in line
    assert report.boxes is not None
    assert report.masks is not None
    assert report.boxes.by_class == {"Chair": 1, "table": 0, "person": 1}
    assert report.masks.by_class == {"Chair": 1, "person": 1}, "no table has a mask"


def test_odd_fields_are_named_with_what_was_made_of_them(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    first, second, third = data["annotations"]
    first["area"], second["area"], third["area"] = float("inf"), float("nan"), "large"
    first["iscrowd"], second["iscrowd"], third["iscrowd"] = "0", "1", "yes"
    third["category_id"] = 13
    data["categories"] = [*CATEGORIES, {"id": 13, "name": "PERSON"}]
    compressed = {"size": [48, 64], "counts": "PT1`0o0"}  # 1600, 16, 1456: by hand
    third["segmentation"] = compressed
    truth = read_annotations(written(tmp_path, data))
    text = "\n".join(truth.problems)
    for named in (
        "annotation 1 has the area inf",
        "annotation 2 has the area nan",
        "annotation 3 has the area 'large'",
        "annotation 1 has iscrowd '0', expected 0 or 1: it counts as one thing",
        "annotation 2 has iscrowd '1', expected 0 or 1: it counts as a crowd",
        "annotation 3 has iscrowd 'yes', expected 0 or 1: it counts as one thing",
        "category 13 (PERSON) has the name of category 9: both are one class",
    ):
        assert text.count(named) == 1, named
    assert truth.classes == ("Chair", "table", "person", "giraffe")
    (thing,) = truth.pictures[1].things
    assert (thing.label, thing.crowd, thing.area) == (2, False, None)
    assert [each.crowd for each in truth.pictures[0].things] == [False, True]
    assert truth.pictures[2].things == ()


def test_run_lengths_as_the_library_writes_them(tmp_path: Path, data: dict[str, Any]) -> None:
    """COCO's text is read here; what the library wrote comes out as it went in."""
    generator = np.random.default_rng(3)
    blobs = cv2.GaussianBlur(generator.random((48, 64)), (0, 0), 3) > 0.5
    for number, mask_hw in enumerate((blobs, ~blobs, generator.random((48, 64)) > 0.5)):
        rle = rle_of_mask(mask_hw)
        entry = {**annotation(50 + number, 3, 5, RED), "segmentation": dict(rle)}
        entry["segmentation"]["counts"] = rle["counts"].decode()
        data["annotations"].append(entry)
    truth = read_annotations(written(tmp_path, data))
    assert truth.problems == ()
    for thing, entry in zip(truth.pictures[2].things, data["annotations"][3:], strict=True):
        assert thing.mask is not None
        given = entry["segmentation"]
        expected = mask_of_rle(Rle(size=given["size"], counts=given["counts"].encode()))
        np.testing.assert_array_equal(mask_of_rle(thing.mask), expected)


def test_panoptic_truth(tmp_path: Path, data: dict[str, Any]) -> None:
    card = colour_card(panoptic=True)
    write_colour_artefact(tmp_path / "panoptic.onnx", card)
    (tmp_path / "pan").mkdir()
    ids_hw = np.zeros((48, 64), np.int64)
    ids_hw[:] = 70_000  # "none", as stuff
    ids_hw[4:10, 6:20], ids_hw[20:40, 30:64] = 3, 300
    ids_hw[45:] = 9  # not listed
    bgr_hwc = np.stack([ids_hw >> 16, ids_hw >> 8 & 255, ids_hw & 255], axis=2)
    cv2.imwrite(str(tmp_path / "pan" / "a.png"), bgr_hwc.astype(np.uint8))
    segments = [
        {"id": 3, "category_id": 5},
        {"id": 300, "category_id": 9},
        {"id": 70_000, "category_id": 1},
        {"id": 77, "category_id": 7},
        {"id": 78, "category_id": 99},
    ]
    annotations = [
        {"image_id": 1, "file_name": "a.png", "segments_info": segments},
        {"image_id": 2, "file_name": "b.png", "segments_info": segments[:1] * 2},
        {"image_id": 9, "file_name": "a.png", "segments_info": segments},
    ]
    categories = [*CATEGORIES, {"id": 1, "name": "none"}]
    panoptic = {**data, "annotations": annotations, "categories": categories}
    truth = read_annotations(written(tmp_path, panoptic, "pan.json"))
    assert truth.is_panoptic
    with Perceiver.load(tmp_path / "panoptic.onnx", backend="onnxruntime") as perceiver:
        report = evaluate_things(perceiver, truth, tmp_path)
    assert report.panoptic is not None
    assert report.panoptic.by_class == {"none": 1, "Chair": 1, "table": 0, "person": 1}
    assert (report.panoptic.all.pq, report.panoptic.all.classes) == (0.75, 4)
    assert report.panoptic.stuff.pq == 1
    assert report.panoptic.things.pq == pytest.approx(2 / 3)
    text = "\n".join(report.problems)
    for named in (
        "pixels of the segments 9, which its annotation does not list: they are void",
        "no pixel of its segments 77: they are missed",
        "segment {'category_id': 99, 'id': 78} has no id or an unknown category",
        "image 2: two segments have the id 3: left out",
        "the annotation of image 9 is not whole",
        "1 image has no annotation (3)",
    ):
        assert named in text, named
    picture_a = truth.pictures[0]
    (tmp_path / "pan" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png is no PNG"):
        read_segments(tmp_path / "pan", picture_a)


def test_what_cannot_be_compared_at_all_is_refused(
    tmp_path: Path, data: dict[str, Any], model: Path
) -> None:
    for content, named in (
        ("[]", "expected a mapping"),
        ("{", "is not JSON"),
        ('{"images": []}', "no list of annotations or categories"),
        ('{"images": [], "annotations": [], "categories": []}', "names no categories"),
    ):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InputError, match=named):
            read_annotations(tmp_path / "bad.json")
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        others = {**data, "categories": [{"id": 5, "name": "zebra"}]}
        with pytest.raises(InputError, match="they share no class"):
            evaluate_things(perceiver, read_annotations(written(tmp_path, others)), tmp_path)
        nothing = read_annotations(written(tmp_path, data))
        with pytest.raises(InputError, match="none of the 3 pictures could be compared"):
            evaluate_things(perceiver, nothing, tmp_path / "elsewhere")


def test_a_corpus_that_numbers_its_things(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("none", *CLASSES)
    write_colour_artefact(tmp_path / "panoptic.onnx", colour_card(panoptic=True))
    samples = []
    for index, blue in enumerate((250, 0)):
        instances_hw, labels_hw = np.zeros((48, 64), np.uint16), np.ones((48, 64), np.uint8)
        instances_hw[4:10, 6:20], labels_hw[4:10, 6:20] = 7, names.index("chair") + 1
        instances_hw[20:40, 30:64], labels_hw[20:40, 30:64] = 300, names.index("person") + 1
        samples.append(
            Sample(
                picture(200, blue),
                np.ones((48, 64), np.float32),
                Intrinsics.from_fov(64, 48, 60),
                labels_hw,
                key=f"{index}",
                instances_hw=instances_hw,
                instance_labels={7: names.index("chair") + 1, 300: names.index("person") + 1},
            )
        )
    write_shard(tmp_path / "corpus", 0, samples)
    write_description(tmp_path / "corpus", {"classes": ["nothing", *names]})
    words = ["evaluate", str(tmp_path / "panoptic.onnx"), "--data", str(tmp_path / "corpus")]
    assert main([*words, "--backend", "onnxruntime", "--json"]) == 1, "classes are named"
    things = json.loads(capsys.readouterr().out)["things"]
    # The person is found in one of two frames: recall 0.5 is the 51st of 101.
    assert things["boxes"]["by_class"] == {"chair": 1, "person": pytest.approx(51 / 101)}
    assert things["masks"]["by_class"] == things["boxes"]["by_class"]
    # In the second frame the person's pixels are said to be "none", which grows by a quarter.
    grown = (3072 - 84 - 680) / (3072 - 84)
    assert things["panoptic"]["by_class"] == {
        "none": pytest.approx((1 + grown) / 2),
        "chair": 1,
        "person": pytest.approx(1 / 1.5),
    }


def test_things_without_a_number_count_neither_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the second frame the person, of whom the model is surer, has no number.

    Labels, things and truth name their classes in capitals or not.
    """
    names = ("none", *(name.upper() for name in CLASSES))
    labels = SegmentationSpec("own", names=("None", *(name.title() for name in CLASSES)))
    card = replace(colour_card(panoptic=True), segmentation=labels)
    write_colour_artefact(tmp_path / "panoptic.onnx", card)
    person = names.index("PERSON") + 1
    samples = []
    for index, blue in enumerate((200, 250)):
        instances_hw, labels_hw = np.zeros((48, 64), np.uint16), np.ones((48, 64), np.uint8)
        instances_hw[20:40, 30:64], labels_hw[20:40, 30:64] = 1 - index, person
        samples.append(
            Sample(
                picture(0, blue),
                np.ones((48, 64), np.float32),
                Intrinsics.from_fov(64, 48, 60),
                labels_hw,
                key=f"{index}",
                instances_hw=instances_hw,
                instance_labels={} if index else {1: person},
            )
        )
    write_shard(tmp_path / "corpus", 0, samples)
    write_description(tmp_path / "corpus", {"classes": ["nothing", *names]})
    words = ["evaluate", str(tmp_path / "panoptic.onnx"), "--data", str(tmp_path / "corpus")]
    main([*words, "--backend", "onnxruntime", "--json"])
    out = capsys.readouterr()
    things = json.loads(out.out)["things"]
    for kind in ("boxes", "masks"):
        assert things[kind]["by_class"] == {"PERSON": 1}
    assert things["panoptic"]["by_class"]["PERSON"] > 0.99
    assert things["panoptic"]["things"]["classes"] == 1
    assert out.err.count("pixels of things without a number are void") == 1


def test_things_of_no_class_count_neither_way(tmp_path: Path) -> None:
    write_colour_artefact(tmp_path / "colour.onnx", colour_card())
    instances_hw = np.zeros((48, 64), np.uint16)
    instances_hw[4:10, 6:20], instances_hw[20:40, 30:64] = 1, 2
    sample = Sample(
        picture(200, 250),
        np.ones((48, 64), np.float32),
        Intrinsics.from_fov(64, 48, 60),
        instances_hw=instances_hw,
        instance_labels={1: 1, 2: 0},
    )
    assert sample.instances_hw is not None
    true = true_things(sample.instances_hw, sample.instance_labels)
    first, second = annotated_things(true)
    assert (first.box, first.label, first.crowd) == ((6, 4, 20, 10), 0, False)
    assert (second.label, second.crowd) == (-1, True)
    with Perceiver.load(tmp_path / "colour.onnx", backend="onnxruntime") as perceiver:
        judge = ThingsJudge(perceiver.card, CLASSES, "here")
        judge.add([first, second], perceiver(sample.rgb_hwc))
    boxes, _ = judge.figures()
    assert boxes.by_class == {"chair": 1}
