"""Which sink a model's answers go to, and which are refused before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dense_perception.core.card_specs import DepthSpec
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.media.bag_sink import BagSink
from dense_perception.media.sinks import FolderSink, open_sink, refuse_input_as_output
from test.support.artefacts import red_card
from test.support.multitask_artefacts import multitask_card, without_depth

RELATIVE = replace(red_card(), depth=DepthSpec(DepthKind.RELATIVE))
LABELS = without_depth(multitask_card())


def test_the_forms_follow_the_wishes(tmp_path: Path) -> None:
    plain = open_sink(tmp_path / "plain", red_card())
    assert isinstance(plain, FolderSink)
    assert plain.forms == ("png", "npy", "color", "side_by_side")
    assert not plain.uses_camera
    bare = open_sink(tmp_path / "bare", red_card(), previews=False, points=True)
    assert isinstance(bare, FolderSink)
    assert bare.forms == ("png", "npy", "ply")
    assert bare.uses_camera
    relative = open_sink(tmp_path / "relative", RELATIVE)
    assert isinstance(relative, FolderSink)
    assert relative.forms == ("npy", "color", "side_by_side")  # no metres, no PNG
    bag = open_sink(tmp_path / "bag", red_card(), bag=True)
    bag.close()
    assert isinstance(bag, BagSink)
    assert bag.uses_camera


@pytest.mark.parametrize(
    ("card", "wish", "says"),
    [
        (LABELS, "bag", "no depth: leave --bag and --ply out, or choose a depth model"),
        (LABELS, "points", "no depth: leave --bag and --ply out"),
        (RELATIVE, "points", "gives relative depth, which has no metres to make a cloud of"),
        (RELATIVE, "bag", "a depth image in a bag is in metres"),
    ],
    ids=["labels-bag", "labels-points", "relative-points", "relative-bag"],
)
def test_what_the_model_cannot_fill_is_refused(
    tmp_path: Path, card: object, wish: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        open_sink(tmp_path / "out", card, **{wish: True})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_only_answers_that_could_replace_their_input_are_refused(tmp_path: Path) -> None:
    bag = tmp_path / "rec"
    bag.mkdir()
    (bag / "metadata.yaml").write_text("")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"")
    for given, output in ((bag, bag), (bag, bag / "out"), (bag, tmp_path), (pictures, pictures)):
        with pytest.raises(InputError, match="would write over --input"):
            refuse_input_as_output(str(given), output)
    for given, output in (
        (bag, tmp_path / "out"),
        (pictures, pictures / "out"),
        (pictures / "a.png", pictures),
    ):
        refuse_input_as_output(str(given), output)
    refuse_input_as_output("0", tmp_path)
