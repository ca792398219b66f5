"""Plain data into dataclasses: what fits is taken, what does not is refused by name."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dense_perception.core.errors import CardError, InputError
from dense_perception.core.strict import Entries, number, read, replaced, yaml_file


@dataclass(frozen=True)
class Part:
    share: float = number(0.5, 0, 1, "how much")


@dataclass(frozen=True)
class Whole:
    name: str
    count: int = number(3, 1, 9, "how many")
    loud: bool = False
    words: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict, metadata={"low": 0, "high": 2})
    anything: Mapping[str, object] = field(default_factory=dict)
    part: Part = Part()
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.count == 7:
            raise InputError("count is 7, which nobody likes")


def test_every_kind_of_entry_is_read() -> None:
    data = {
        "name": "a",
        "count": 4,
        "loud": True,
        "words": ["x", "y"],
        "factors": {"stem": 1.5, "head": 0},
        "anything": {"deep": [1]},
        "part": {"share": 1},
        "parts": [{"share": 0.25}, {}],
    }
    got = read(Whole, data, "f.yaml", InputError)
    assert got == Whole(
        "a",
        4,
        True,
        ("x", "y"),
        {"stem": 1.5, "head": 0},
        {"deep": [1]},
        Part(1.0),
        (Part(0.25), Part()),
    )
    assert isinstance(got.part.share, float)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ([1], "f.yaml: expected a mapping, got list"),
        ({}, r"f.yaml: \['name'\] are missing"),
        ({"name": "a", 3: 1, "b": 2}, r"f.yaml: unknown entries \['3', 'b'\], expected some of"),
        ({"name": 5}, "f.yaml: name is 5, expected a non-empty text"),
        ({"name": "a", "count": 4.0}, r"count is 4.0, expected a whole number in \[1, 9\] \(how"),
        ({"name": "a", "count": True}, "count is True"),
        ({"name": "a", "count": 10}, "count is 10"),
        ({"name": "a", "loud": 1}, "loud is 1, expected true or false"),
        ({"name": "a", "words": "xy"}, "words is 'xy', expected a list of texts"),
        ({"name": "a", "words": [1]}, r"words is \[1\]"),
        (
            {"name": "a", "factors": {"stem": 3}},
            r"factors.stem is 3, expected a number in \[0, 2\]",
        ),
        ({"name": "a", "anything": 1}, "anything is 1, expected a mapping"),
        ({"name": "a", "part": 1}, "f.yaml: part: expected a mapping, got int"),
        ({"name": "a", "part": {"shar": 1}}, "f.yaml: part: unknown entries"),
        ({"name": "a", "part": {"share": float("nan")}}, "part: share is nan"),
        ({"name": "a", "parts": {"share": 1}}, "parts is .*expected a list"),
        ({"name": "a", "parts": [{}, {"share": 2}]}, r"f.yaml: parts\[1\]: share is 2"),
        ({"name": "a", "count": 7}, "f.yaml: count is 7, which nobody likes"),
    ],
)
def test_what_does_not_fit_is_named(data: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read(Whole, data, "f.yaml", InputError)


@dataclass(frozen=True)
class Preset:
    width: int = 4
    ratio: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    bias: bool = True


def test_a_preset_takes_values_like_its_own() -> None:
    got = replaced(Preset(width=6), {"ratio": 2, "sizes": [3]}, "network", InputError)
    assert got == Preset(6, 2.0, (3,), True)
    assert isinstance(got.ratio, float)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"widht": 1}, r"network: unknown entries \['widht'\]"),
        ({"width": 1.0}, "network: width is 1.0, expected something like 4"),
        ({"width": True}, "width is True"),
        ({"ratio": True}, "ratio is True"),
        ({"bias": 1}, "bias is 1"),
        ({"sizes": [1, 2.5]}, r"sizes is \[1, 2.5\], expected whole numbers like \[1, 2\]"),
    ],
)
def test_a_preset_refuses_other_values(data: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        replaced(Preset(), data, "network", InputError)


def test_single_entries() -> None:
    entries = Entries({"a": 1}, "card", InputError)
    assert entries.choice("task", "depth", ("depth", "labels")) == "depth"
    with pytest.raises(InputError, match=r"card: task is \['depth'\], expected one of \['depth'\]"):
        entries.choice("task", ["depth"], ("depth",))
    assert entries.number("x", 2, 0, float("inf")) == 2


def test_thousands_of_brackets_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 30_000 + "]" * 30_000)
    begin = time.process_time()
    with pytest.raises(CardError, match="nested too deeply"):
        yaml_file(path, "the model card", CardError)
    assert time.process_time() - begin < 0.5
    path.write_text("names: [" + "[a], " * 1000 + "]")
    assert yaml_file(path, "the model card", CardError) == {"names": [["a"]] * 1000}
