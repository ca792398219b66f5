"""Model cards: round trips, and a named complaint for everything that can be wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError
from dense_perception.core.onnx_file import read_onnx_metadata
from test.support.artefacts import red_card, write_red_artefact

GOOD: dict[str, Any] = {
    "schema": 1,
    "name": "red_depth",
    "family": "test",
    "variant": "red",
    "task": "depth",
    "summary": "Depth is linear in the red channel.",
    "input": {"height": 48, "width": 64, "focal": True},
    "depth": {"kind": "metric", "min_m": 0.1, "max_m": 1000.0},
    "licence": {"weights": "Apache-2.0"},
    "files": {"fp32": {"file": "red_depth.fp32.onnx", "sha256": "0" * 64, "bytes": 10}},
}


def test_yaml_round_trip(tmp_path: Path) -> None:
    card = ModelCard.from_dict(GOOD, "here")
    path = tmp_path / "red_depth.yaml"
    path.write_text(yaml.safe_dump(card.to_dict()))
    assert ModelCard.from_yaml(path) == card
    assert card.input.height == 48
    assert card.files["fp32"].bytes == 10


def test_the_card_inside_the_graph_is_the_card_without_its_files(tmp_path: Path) -> None:
    written = write_red_artefact(tmp_path / "red.onnx")
    assert ModelCard.from_onnx(tmp_path / "red.onnx") == written == red_card()


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["schema"], 99, "schema is 99"),
        (["name"], "../evil", "name is '../evil'"),
        (["task"], "sing", "task is 'sing'"),
        (["summary"], "", "summary"),
        (["input"], [1], "input is"),
        (["input", "width"], "64", "input.width is '64'"),
        (["input", "width"], 64.5, "whole number"),
        (["input", "height"], 9999999, "input.height"),
        (["input", "focal"], "yes", "input.focal"),
        (["input", "resize"], "magic", "input.resize"),
        (["input", "pad"], [0, 0, 0], "none without resize: letterbox"),
        (["depth", "kind"], "guess", "depth.kind is 'guess'"),
        (["depth", "min_m"], True, "depth.min_m"),
        (["files", "fp32", "file"], "../../etc/passwd", "bare file name"),
        (["files", "fp32", "file"], "/abs.onnx", "bare file name"),
        (["files", "fp32", "sha256"], "abc", "64 hex digits"),
        (["files", "fp64"], {}, "files is 'fp64'"),
        (["surprise"], 1, "unknown entries"),
    ],
)
def test_wrong_entries_are_named(path: list[str], value: object, named: str) -> None:
    data = copy.deepcopy(GOOD)
    target: Any = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(CardError, match=named):
        ModelCard.from_dict(data, "here")


def test_a_letterbox_survives_and_its_padding_is_checked() -> None:
    entry = {"height": 64, "width": 64, "resize": "letterbox"}
    plain = ModelCard.from_dict({**GOOD, "input": entry}, "here")
    assert "pad" not in plain.to_dict()["input"]
    entry |= {"pad": [114, 114, 114], "place": "corner"}
    card = ModelCard.from_dict({**GOOD, "input": entry}, "here")
    assert (card.input.pad, card.input.place) == ((114, 114, 114), "corner")
    assert ModelCard.from_dict(card.to_dict(), "there") == card
    for key, wrong in (("pad", [256, 0, 0]), ("pad", 114), ("pad", [1.5, 0, 0]), ("place", "top")):
        with pytest.raises(CardError, match=f"input.{key} is"):
            ModelCard.from_dict({**GOOD, "input": {**entry, key: wrong}}, "here")


MULTITASK: dict[str, Any] = {
    **GOOD,
    "task": "multitask",
    "segmentation": {"labels": "generated_rooms"},
    "maps": ["edges", "normals"],
}


def test_a_multitask_card_names_its_outputs_in_one_order_and_survives() -> None:
    card = ModelCard.from_dict(MULTITASK, "here")
    assert card.outputs == ("depth", "labels", "normals", "edges")
    assert ModelCard.from_dict(card.to_dict(), "there") == card
    alone = {k: v for k, v in MULTITASK.items() if k not in ("depth", "segmentation")}
    assert ModelCard.from_dict(alone, "here").outputs == ("normals", "edges")
    assert "maps" not in ModelCard.from_dict(GOOD, "here").to_dict()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"maps": ["colour"]}, r"maps is \['colour'\], expected"),
        ({"maps": ["edges", "edges"]}, "different ones"),
        ({"maps": "edges"}, "maps is 'edges'"),
        ({"maps": [["edges"]]}, "maps is"),
        ({"maps": {"edges": True}}, "maps is"),
        ({"task": "depth"}, "expected none for the task 'depth'"),
    ],
)
def test_wrong_maps_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CardError, match=named):
        ModelCard.from_dict({**MULTITASK, **changes}, "here")


def test_own_classes_travel_with_the_card() -> None:
    own = {**MULTITASK, "segmentation": {"labels": "own", "names": ["shelf", "robot"]}}
    card = ModelCard.from_dict(own, "here")
    assert card.segmentation is not None
    assert card.segmentation.label_set.labels == ("shelf", "robot")
    assert ModelCard.from_dict(card.to_dict(), "there") == card
    assert "names" not in ModelCard.from_dict(MULTITASK, "here").to_dict()["segmentation"]
    for wrong in (
        {"labels": "own"},
        {"labels": "generated_rooms", "names": ["shelf"]},
        {"labels": "own", "names": ["shelf", "shelf"]},
    ):
        with pytest.raises(CardError, match=r"segmentation\.names is"):
            ModelCard.from_dict({**MULTITASK, "segmentation": wrong}, "here")


def test_a_multitask_model_needs_an_output() -> None:
    empty = {k: v for k, v in MULTITASK.items() if k not in ("depth", "segmentation", "maps")}
    with pytest.raises(CardError, match="no 'depth', 'segmentation', 'instances' or 'maps'"):
        ModelCard.from_dict(empty, "here")


THINGS: dict[str, Any] = {
    **{key: value for key, value in GOOD.items() if key != "depth"},
    "task": "instances",
    "instances": {"labels": "coco", "count": 100},
}


def test_a_card_of_instances_names_its_outputs_and_survives() -> None:
    card = ModelCard.from_dict(THINGS, "here")
    assert (card.outputs, card.on_request) == (("instances",), ())
    assert card.to_dict()["instances"] == {"labels": "coco", "count": 100}
    masks = {**THINGS, "instances": {**THINGS["instances"], "masks": True, "count": 300}}
    card = ModelCard.from_dict(masks, "here")
    assert (card.outputs, card.on_request) == (("instances", "instance_ids"), ("masks",))
    assert ModelCard.from_dict(card.to_dict(), "there") == card
    entry = {"labels": "own", "names": ["chair"], "count": 255, "panoptic": True}
    card = ModelCard.from_dict({**MULTITASK, "instances": entry}, "here")
    assert card.outputs == ("depth", "labels", "normals", "edges", "instances", "instance_ids")
    assert card.on_request == (), "the masks of a merge are its ids"
    assert card.instances is not None
    assert card.instances.id_type == "uint8"
    assert ModelCard.from_dict(card.to_dict(), "there") == card


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"labels": "lvis"}, "instances.labels is 'lvis'"),
        ({"count": 0}, "instances.count is 0, expected a whole number"),
        ({"count": 1001}, "instances.count is 1001"),
        ({"count": "many"}, "instances.count is 'many'"),
        ({"masks": 1}, "instances.masks is 1, expected true or false"),
        ({"names": ["chair"]}, "instances.names is"),
        ({"labels": "own"}, "instances.names is"),
        ({"labels": "own", "names": [str(n) for n in range(257)]}, "instances.names is 257"),
        ({"score": 0.5}, r"instances is \['score'\], expected entries among"),
        ({"panoptic": True}, "instances.panoptic is True, expected a 'segmentation' entry"),
    ],
)
def test_wrong_entries_of_instances_are_named(entry: dict[str, Any], named: str) -> None:
    wrong = {**THINGS, "instances": {**THINGS["instances"], **entry}}
    with pytest.raises(CardError, match=named):
        ModelCard.from_dict(wrong, "here")


def test_instances_fit_the_task_the_labels_and_the_input() -> None:
    with pytest.raises(CardError, match="no 'instances' entry"):
        ModelCard.from_dict({k: v for k, v in THINGS.items() if k != "instances"}, "here")
    things = {"labels": "coco", "count": 9, "panoptic": True}
    with pytest.raises(CardError, match=r"instances\.labels is .*'bicycle'.*generated_rooms"):
        ModelCard.from_dict({**MULTITASK, "instances": things}, "here")
    windows = {"labels": "ade20k", "window": 512, "stride": 512}
    wrong = {**MULTITASK, "segmentation": windows, "instances": THINGS["instances"]}
    with pytest.raises(CardError, match="none for a network that sees windows"):
        ModelCard.from_dict(wrong, "here")


def test_a_depth_model_needs_a_depth_entry() -> None:
    data = {key: value for key, value in GOOD.items() if key != "depth"}
    with pytest.raises(CardError, match="no 'depth' entry"):
        ModelCard.from_dict(data, "here")


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "[1, 2", "- 1"])
def test_yaml_that_is_no_card_is_refused_and_never_executed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(CardError, match=r"card\.yaml"):
        ModelCard.from_yaml(path)


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [*{old}, *{old}, *{old}, *{old}]}}\n"
    for old, new in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (LAUGHS, "more than 20000 values"),
        (MERGES, "more than 20000 values"),
        ("a: &a [*a]", "more than 20000 values|nested"),
        ("[" * 5_000, "nested too deeply"),
        ("network: " + "[" * 40 + "]" * 40, "nested more than 24 deep"),
        ("1: one\ntwo: 2", "an entry is named 1, expected a text"),
        ("network: {2026-01-01: x}", "an entry is named datetime.date"),
        ("network: !!binary aGk=", "is a bytes"),
        ("network: !!set {a, b}", "is a set"),
        ("network: 2026-99-99", "cannot read the model card"),
        ("network: !!bool maybe", "cannot read the model card"),
        ("network: !!int ''", "cannot read the model card"),
        ("schema: 0x" + "f" * 9999, "thousands of digits"),
        ("x: '" + "y" * 70_000 + "'", "larger than 64 kB"),
    ],
)
def test_the_shape_of_a_card_comes_before_its_values(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(CardError, match=named) as refusal:
        ModelCard.from_yaml(path)
    assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["parity"], {"frames": "three"}, "parity.frames is 'three'"),
        (["parity"], {"max_of_range": [1]}, r"parity.max_of_range is \[1\]"),
        (["cost"], {"parameters": "many"}, "cost.parameters is 'many'"),
        (["depth", "max_m"], 10**400, "depth.max_m is"),
    ],
)
def test_free_entries_that_are_used_are_numbers(path: list[str], value: object, named: str) -> None:
    test_wrong_entries_are_named(path, value, named)


def test_dates_without_quotes_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "provenance": {"day": "D"}}).replace("D", "2026-01-31"))
    assert ModelCard.from_yaml(path).provenance == {"day": "2026-01-31"}


def test_deep_json_in_a_graph_is_refused(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "deep.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    model.metadata_props[0].value = "[" * 100_000
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CardError, match="nested too deeply"):
        ModelCard.from_onnx(path)


def test_every_truncation_of_an_artefact_is_noticed_or_harmless(tmp_path: Path) -> None:
    """Cutting an ONNX file anywhere raises, unless the cut falls between two whole fields."""
    whole = tmp_path / "whole.onnx"
    write_red_artefact(whole)
    data = whole.read_bytes()
    expected = read_onnx_metadata(whole)
    cut = tmp_path / "cut.onnx"
    raised = 0
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            assert read_onnx_metadata(cut).items() <= expected.items()
        except ArtefactError:
            raised += 1
    assert raised > 0.95 * len(data)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not an onnx file at all", b"\xff" * 100])
def test_garbage_is_not_an_artefact(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(data)
    with pytest.raises((ArtefactError, CardError), match=r"garbage\.onnx"):
        ModelCard.from_onnx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"nowhere\.onnx"):
        ModelCard.from_onnx(tmp_path / "nowhere.onnx")
