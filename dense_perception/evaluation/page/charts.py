"""Charts as SVG that stands inside a page: text stays text, colours are the page's variables.

Drawn by Matplotlib without ``pyplot``: nothing outside of a call is changed. Each colour is drawn
as a code that :func:`_inline` replaces by a CSS variable, so one drawing serves light, dark and
paper. Series differ by marker and dash too, not by colour alone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dense_perception.core.printable import printable
from dense_perception.evaluation.baselines import CONSTANT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLOTS = 8  # colours of the page; more series take them again
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_WIDTH_PT, _HEIGHT_PT = 360.0, 250.0
_INK, _MUTED, _LINE, _SURFACE, _BASELINE = (f"#0d0e0{k}" for k in range(5))
_SERIES = tuple(f"#0d0f0{k}" for k in range(SLOTS))
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _LINE: "--line",
    _SURFACE: "--surface",
    _BASELINE: "--baseline",
    **{code: f"--series-{k}" for k, code in enumerate(_SERIES)},
}
_STYLE: dict[Any, Any] = {  # matplotlib types each key
    "svg.fonttype": "none",  # text as text
    "svg.hashsalt": "dense_perception",  # the same ids each time
    "text.parse_math": False,  # a name may have dollars
    "font.family": "DejaVu Sans",  # for the layout alone; the page's own font is shown
    "font.size": 10.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Series:
    """A line or a cloud of points; ``slot`` is its contestant's colour, ``None`` a baseline's."""

    name: str
    slot: int | None
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Axis:
    """``reference`` is a value of its own with a line, such as 1 where a ratio is right."""

    label: str
    log: bool = False
    reference: float | None = None
    low: float | None = None
    high: float | None = None


def why_missing() -> str:
    """Why no chart can be drawn; empty where Matplotlib is installed."""
    cure = "pip install 'dense_perception[report]'"
    if find_spec("matplotlib") is None:
        return f"Matplotlib is not installed: {cure}"
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:  # a system's one, built for another NumPy
        return f"Matplotlib cannot be loaded ({error}): {cure}"
    return ""


def draw_lines(
    key: str, series: Sequence[Series], x: Axis, y: Axis, *, diagonal: bool = False
) -> str:
    """Lines over ``x`` with bands between ``low`` and ``high``; a gap where ``y`` is ``None``.

    ``diagonal`` draws y = x, where a reliability curve should lie.
    """
    with _style():
        figure, axes = _blank()
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        for each in series:
            colour, marker, dash = _looks(each.slot)
            if each.name == CONSTANT:
                dash = (0, (1, 2))
            if each.low and each.high:
                axes.fill_between(
                    each.x, _gaps(each.low), _gaps(each.high), color=colour, alpha=0.1, linewidth=0
                )
            axes.plot(
                each.x,
                _gaps(each.y),
                color=colour,
                marker=marker,
                markersize=5,
                linestyle=dash,
                linewidth=1.8,
                markeredgecolor=_SURFACE,
                markeredgewidth=0.6,
            )
        _dress(axes, x, y)
        return _inline(figure, key)


def draw_intervals(
    key: str, rows: Sequence[tuple[str, int | None, float, float | None, float | None]], x: Axis
) -> str:
    """A line each of ``(name, slot, value, low, high)``: the value as a mark on its interval."""
    with _style():
        figure, axes = _blank(height=52.0 + 38.0 * len(rows))
        for k, (name, slot, value, low, high) in enumerate(rows):
            colour, marker, _ = _looks(slot)
            if low is not None and high is not None:
                axes.plot([low, high], [k, k], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(
                [value],
                [k],
                color=colour,
                marker=marker,
                markersize=8 if slot is not None else 11,
                markeredgecolor=_SURFACE if slot is not None else colour,
                markeredgewidth=1.2 if slot is not None else 2.5,
            )
            axes.annotate(
                _shortened(name),
                (0, k),
                xycoords=("axes fraction", "data"),
                xytext=(0, 9),
                textcoords="offset points",
                fontsize=10,
                color=_INK,
            )
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        _dress(axes, x, Axis(""))
        axes.grid(visible=False, axis="y")
        return _inline(figure, key)


def draw_points(key: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Single points, such as accuracy against time, with the interval of ``y``."""
    with _style():
        figure, axes = _blank()
        for each in series:
            colour, marker, _ = _looks(each.slot)
            if each.low and each.high:
                for where, low, high in zip(each.x, each.low, each.high, strict=True):
                    if low is not None and high is not None:
                        axes.plot([where, where], [low, high], color=colour, linewidth=1.8)
            axes.plot(
                each.x,
                _gaps(each.y),
                color=colour,
                marker=marker,
                markersize=9,
                linestyle="none",
                markeredgecolor=_SURFACE,
                markeredgewidth=1.2,
            )
        _dress(axes, x, y)
        return _inline(figure, key)


def draw_marker(slot: int | None, name: str = "") -> str:
    """The sign of a contestant for a legend: the path of a 14x14 drawing, by hand.

    It needs no Matplotlib: tables have it too.
    """
    if slot is None:
        return "M1 7h2m2 0h2m2 0h2m2 0h2" if name == CONSTANT else "M1 7h5m2 0h5"
    shapes = (
        "M7 2a5 5 0 1 0 .01 0z",
        "M2.5 2.5h9v9h-9z",
        "M7 1.5 12.5 11.5h-11z",
        "M7 1 13 7 7 13 1 7z",
        "M7 12.5 1.5 2.5h11z",
        "M5 1.5h4V5h3.5v4H9v3.5H5V9H1.5V5H5z",
        "M3.5 1.5 7 5l3.5-3.5 2 2L9 7l3.5 3.5-2 2L7 9l-3.5 3.5-2-2L5 7 1.5 3.5z",
        "M7 1.2 12.8 5.4 10.6 12.4H3.4L1.2 5.4z",
    )
    return shapes[slot % len(shapes)]


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _blank(height: float = _HEIGHT_PT) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_PT / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def _looks(slot: int | None) -> tuple[str, str, object]:
    if slot is None:
        return _BASELINE, "|", (0, (3, 2))
    return (
        _SERIES[slot % SLOTS],
        MARKERS[slot % len(MARKERS)],
        _DASHES[slot % len(_DASHES)],  # gaps show a line that lies below
    )


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _dress(axes: Axes, x: Axis, y: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=3)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(x.label)
    axes.set_ylabel(y.label)
    for scale, ruler, set_scale in (
        (x, axes.xaxis, axes.set_xscale),
        (y, axes.yaxis, axes.set_yscale),
    ):
        if scale.log:
            set_scale("log")
            low, high = ruler.get_view_interval()
            subs = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 4, 5, 7)
            ruler.set_major_locator(LogLocator(subs=subs))
            ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ruler.set_minor_locator(NullLocator())
    if x.reference is not None:
        axes.axvline(x.reference, color=_MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
    if y.reference is not None:
        axes.axhline(y.reference, color=_MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.set_xlim(left=x.low, right=x.high)
    if y.label:
        axes.set_ylim(bottom=y.low, top=y.high)


def _inline(figure: Figure, key: str) -> str:
    """The SVG element alone: no header, no metadata, no style of its own, unique ids."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;", "", text)  # the page's
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', text)
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{box[1] if box else ""}">', text, count=1)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{key}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", text)
    for code, variable in _VARIABLES.items():
        text = re.sub(rf"\b(fill|stroke): {code}", rf"\1: var({variable})", text)
    return re.sub(r"\n\s*", "\n", text)


def _shortened(name: str, length: int = 52) -> str:
    name = printable(name, keep="")
    return name if len(name) <= length else name[: length - 1] + "…"
