"""What sections of the page are made of, before any markup: tables, charts, notes, frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    ``value`` is the exact number behind ``text``; ``interval`` stands below it; ``best`` is
    ``best``, ``leads`` (not certain) or empty, shown in words and by a sign; ``warning`` is a short
    remark that must be seen; ``bar`` is a share of 1 drawn behind the number.
    """

    text: str
    value: float | None = None
    interval: str = ""
    best: str = ""
    warning: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Row:
    """A row: its head, a smaller line below the head, its cells; ``slot`` is its colour."""

    head: str
    cells: Sequence[Cell]
    detail: str = ""
    slot: int | None = None


@dataclass(frozen=True)
class RowGroup:
    """Rows under a title of their own; an empty title is none."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Column:
    """The head of a column: ``detail`` is a smaller line, ``slot`` the colour of what it names.

    ``text`` columns are set left, the others right as numbers are.
    """

    head: str
    detail: str = ""
    slot: int | None = None
    text: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption; ``corner`` is the head of the column of row heads.

    ``more`` are tables that lie folded below it, under ``more_title``.
    """

    key: str
    caption: str
    corner: str
    columns: Sequence[Column]
    groups: Sequence[RowGroup]
    note: str = ""
    folded: bool = False
    more: Sequence[Table] = ()
    more_title: str = ""

    @property
    def is_short(self) -> bool:
        """Whether it should stay on one sheet of paper."""
        return sum(len(group.rows) for group in self.groups) <= 12


@dataclass(frozen=True)
class Drawing:
    """A chart as SVG, with the text for those who do not see it and its numbers as a table."""

    key: str
    title: str
    svg: str
    alt: str
    note: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class Picture:
    """One picture of a shown frame; ``source`` is a data URI, ``width`` and ``height`` pixels."""

    title: str
    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class PictureRow:
    """Image, truth, prediction, error of one answer, with its caption."""

    title: str
    caption: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Section:
    """A part of the page: a title, paragraphs, then what it shows.

    ``short`` is its name in the list of contents. ``legend`` are the names and slots of the
    contestants in its drawings.
    """

    key: str
    short: str
    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()
    facts: Sequence[tuple[str, str]] = ()
    legend: Sequence[tuple[str, int | None]] = ()
