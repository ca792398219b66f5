"""Relabelling against tables written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.core.labels import LABEL_SETS, LabelSet
from dense_perception.core.relabel import relabelling

SIX = LabelSet("six", ("road", "sidewalk", "car", "person", "sky", "tree"))


def test_without_wishes_nothing_changes() -> None:
    mapping = relabelling(SIX)
    assert mapping.names == dict(enumerate(SIX.labels))
    assert mapping.void == 255
    assert mapping.table[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(mapping.table[6:].tolist()) == {255}, "numbers of no class are void"


def test_groups_are_numbered_in_order_and_the_rest_is_void() -> None:
    mapping = relabelling(SIX, ["drivable: Road, sidewalk", "moving: car,person"])
    assert mapping.names == {0: "drivable", 1: "moving"}
    assert mapping.table[:6].tolist() == [0, 0, 1, 1, 255, 255]
    assert (mapping.colors[0] == mapping.colors[1]).all()
    assert (mapping.colors[0] != mapping.colors[2]).any()


def test_a_star_takes_what_no_group_names_wherever_it_stands() -> None:
    mapping = relabelling(SIX, ["obstacle: *", "drivable: road"], first_label=1, void_label=0)
    assert mapping.names == {1: "obstacle", 2: "drivable"}
    assert mapping.table[:7].tolist() == [2, 1, 1, 1, 1, 1, 0]
    both = relabelling(SIX, ["mine: road, *"])
    assert both.table[:6].tolist() == [0] * 6


@pytest.mark.parametrize(
    ("first", "void", "dtype", "expected"),
    [
        (1, 0, np.uint8, [1, 2, 3, 4, 5, 6]),
        (250, -1, np.uint16, [250, 251, 252, 253, 254, 255]),
        (249, -1, np.uint8, [249, 250, 251, 252, 253, 254]),
        (1000, -1, np.uint16, [1000, 1001, 1002, 1003, 1004, 1005]),
        (0, 65535, np.uint16, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_numbers_and_width(first: int, void: int, dtype: type, expected: list[int]) -> None:
    mapping = relabelling(SIX, first_label=first, void_label=void)
    assert mapping.table.dtype == dtype
    assert mapping.table[:6].tolist() == expected
    wanted = {-1: 255 if dtype is np.uint8 else 65535}.get(void, void)
    assert mapping.void == wanted
    assert mapping.table[6] == wanted


def test_more_than_255_classes_need_16_bits() -> None:
    many = LabelSet("many", tuple(f"class {number}" for number in range(300)))
    mapping = relabelling(many)
    assert mapping.table.dtype == np.uint16
    assert mapping.table[:300].tolist() == list(range(300))
    assert mapping.void == mapping.table[300] == 65535


def test_the_published_sets_can_be_grouped() -> None:
    groups = ["drivable: road, floor, path", "person: person", "obstacle: *"]
    ade = relabelling(LABEL_SETS["ade20k"], groups)
    assert sorted(set(ade.table[:150].tolist())) == [0, 1, 2]
    assert (ade.table[:150] == 1).sum() == 1


@pytest.mark.parametrize(
    ("groups", "wishes", "complaint"),
    [
        (["drivable road"], {}, "label group 'drivable road', expected 'NAME: class, class"),
        (["drivable: "], {}, "expected 'NAME: class, class"),
        (["drivable: raod"], {}, "no class 'raod': did you mean 'road'"),
        (["a: zzzz"], {}, "its classes are road, sidewalk"),
        (["a: road", "b: road"], {}, "class 'road' is in the label groups 'a' and 'b'"),
        (["a: road", "a: car"], {}, "two label groups 'a'"),
        (["a: *", "b: *"], {}, "two label groups take"),
        ([], {"void_label": 2}, "void_label is 2, which is also the label of 'car'"),
        ([], {"first_label": 65534}, "labels go up to 65539, expected at most 65535"),
    ],
)
def test_mistakes_are_named(groups: list[str], wishes: dict[str, int], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        relabelling(SIX, groups, **wishes)
