"""COCO's things as a corpus: what is wrong in the annotations is said, and nothing else is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.data.corpus import Corpus
from dense_perception.data.sources import open_frames, problems_of
from dense_perception.evaluation.sources import fingerprint, name_sources
from test.support.coco_set import HEIGHT, PROBLEMS, WIDTH, coco_things
from test.support.instance_artefacts import colour_card, write_colour_artefact

MUG, TABLE = 1, 2


def test_things_become_a_corpus_and_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"coco_things:{coco_things(tmp_path / 'set')}"
    assert main(["data", "convert", source, "--out", str(tmp_path / "c")]) == 0
    said = capsys.readouterr().err
    for problem in PROBLEMS:
        assert problem in said
    assert "its box counts alone" not in said
    corpus = Corpus(tmp_path / "c")
    assert (len(corpus), corpus.classes) == (2, ("mug", "table"))
    first, second = corpus[0], corpus[1]
    assert first.labels_hw is None
    assert first.instances_hw is not None

    def at(x: int, y: int) -> tuple[int, int]:
        """The number of the thing there, and its class."""
        assert first.instances_hw is not None
        number = int(first.instances_hw[y, x])
        return number, first.instance_labels.get(number, -1)

    places = {"table": (1, 35), "mug": (7, 27), "cut off": (23, 3), "same id": (34, 15)}
    numbers = {name: at(*place)[0] for name, place in places.items()}
    assert len(set(numbers.values()) - {0}) == 4
    assert [at(*place)[1] for place in places.values()] == [TABLE, MUG, TABLE, MUG]
    for place in ((42, 20), (55, 15)):  # a crowd, a box without a mask
        assert at(*place)[0] > 0
        assert at(*place)[1] == 0
    assert at(60, 40) == (0, -1)
    assert len(first.instance_labels) == 6
    assert np.count_nonzero(first.instances_hw == at(23, 3)[0]) == 10 * 10
    assert second.instances_hw is not None
    assert not second.instances_hw.any()


def test_an_evaluation_says_what_is_wrong_and_sees_what_is_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model = coco_things(tmp_path / "set"), tmp_path / "model.onnx"
    path = root / "annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"mug"', '"chair"'))
    write_colour_artefact(model, colour_card(height=HEIGHT, width=WIDTH))
    (source,) = name_sources([f"coco_things:{root}"])
    words = ["evaluate", str(model), "--data", source.text, "--backend", "onnxruntime"]
    before = fingerprint(source)
    for more in ([], ["--out", str(root / "report")]):
        assert main([*words, *more]) == 1
        said = capsys.readouterr().err
        for problem in PROBLEMS:
            assert problem in said
    assert fingerprint(source) == before, "its own report is no data"
    path.write_text(path.read_text().replace('"chair"', '"chairs"'))
    assert fingerprint(source) != before


def test_annotations_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    root = coco_things(tmp_path)
    path = root / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    for image in data["images"]:
        image["width"] = WIDTH + 8
    data["annotations"] = data["annotations"][:1]
    path.write_text(json.dumps(data))
    frames = open_frames(f"coco_things:{root}")
    assert problems_of(frames) == []
    with pytest.raises(Exception, match=f"has {WIDTH}x{HEIGHT} pixels, its annotations are for"):
        frames[0]


def test_things_that_others_cover_are_counted(tmp_path: Path) -> None:
    root = coco_things(tmp_path)
    path = root / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    assert not [each for each in problems_of(open_frames(f"coco_things:{root}")) if "cover" in each]
    generator = np.random.default_rng(1)
    data["annotations"] = []
    for number in range(1, 41):
        image = 1 + number % 2
        width, height = (int(side) for side in generator.integers(1, 9, 2))
        x, y = int(generator.integers(0, 12)), int(generator.integers(0, 12))
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry = {"id": number, "image_id": image, "category_id": 2, "segmentation": [corners]}
        data["annotations"].append(entry | {"bbox": [x, y, width, height]})
    crowd = {"id": 41, "image_id": 1, "category_id": 2, "iscrowd": 1, "bbox": [0, 0, 2, 2]}
    data["annotations"].append(crowd | {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]})
    path.write_text(json.dumps(data))
    frames = open_frames(f"coco_things:{root}")
    seen = sum(label > 0 for index in (0, 1) for label in frames[index].instance_labels.values())
    assert 0 < seen < 40
    (said,) = (each for each in problems_of(frames) if "cover" in each)
    assert f"{40 - seen} things that smaller ones cover wholly are dropped" in said
