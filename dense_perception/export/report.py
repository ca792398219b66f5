"""How an export is followed and what it says in the end: a bar, a table, JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

from tqdm import tqdm

from dense_perception.export.foreign.settle_picture import Decision
from dense_perception.export.model_folder import Exported, Plan
from dense_perception.export.quantize import BYTES

_WIDEST = 48


class PrecisionRecord(TypedDict):
    """How a coarse file was made, as the card keeps it; drops are shares."""

    drop: float
    drop_if_all: float | str
    max_drop: float
    kept_fp32: list[str]


@contextmanager
def progress_of(plan: Plan, *, quiet: bool = False) -> Iterator[Callable[[str, int], None]]:
    """A bar for :func:`~dense_perception.export.package.export_model`; yields its ``on_step``."""
    coarse = {*plan.precisions} - {"fp32"}
    total = 2 + 4 * len(coarse) + bool(coarse.intersection(BYTES))
    with tqdm(total=total, disable=quiet, file=sys.stderr) as bar:

        def on_step(step: str, more: int) -> None:
            bar.total = max((bar.total or 0) + more, bar.n + 1)
            bar.set_description(step)
            bar.update()

        yield on_step
        bar.total = bar.n  # a search may end sooner than it could have
        bar.refresh()


@contextmanager
def opening_progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A bar for :func:`~dense_perception.export.foreign.convert.open_foreign`; yields its
    ``on_step``.
    """
    with tqdm(total=5, disable=quiet, file=sys.stderr, leave=False) as bar:

        def on_step(step: str) -> None:
            bar.set_description(step)
            bar.update()

        yield on_step


def decisions_table(decisions: Sequence[Decision]) -> str:
    """What was settled about an imported graph, its value and why."""
    widths = [
        max(len(text) for text in column)
        for column in zip(*((each.what, each.value[:_WIDEST]) for each in decisions), strict=True)
    ]
    return "\n".join(
        f"{each.what:<{widths[0]}}  {each.value:<{widths[1]}}  {each.why}" for each in decisions
    )


def export_summary(exported: Exported) -> dict[str, object]:
    """The card's path, each comparison, how each coarse file was made, and what was left out."""
    files = [
        {
            "file": row.file,
            "bytes": row.bytes,
            "runtime": row.runtime,
            "against": row.against,
            "max_of_range": row.difference.max_of_range,
            "mean_of_range": row.difference.mean_of_range,
        }
        for row in exported.rows
    ]
    return {
        "card": exported.card_path,
        "files": files,
        "precision": _made(exported),
        "warnings": list(exported.warnings),
    }


def export_table(exported: Exported) -> str:
    """The comparisons in columns, and a line for each coarse file."""
    lines = [f"{'file':<32} {'MB':>6} {'runtime':<12} {'against':<14} {'max':>9} {'mean':>9}"]
    for row in exported.rows:
        lines.append(
            f"{row.file:<32} {row.bytes / 1e6:>6.1f} {row.runtime:<12} {row.against:<14} "
            f"{row.difference.max_of_range:>9.1e} {row.difference.mean_of_range:>9.1e}"
        )
    for precision, record in _made(exported).items():
        kept = len(record["kept_fp32"])
        lines.append(
            f"{precision}: drop {record['drop']:.4f} of {record['max_drop']:g} allowed, "
            + (
                f"{kept} layers kept in fp32 (without them {record['drop_if_all']})"
                if kept
                else "everything converted"
            )
        )
    lines.append(f"differences are shares of the output's range; card: {exported.card_path}")
    return "\n".join(lines)


def _made(exported: Exported) -> Mapping[str, PrecisionRecord]:
    made: Mapping[str, PrecisionRecord] = exported.card.provenance.get("precision", {})
    return made
