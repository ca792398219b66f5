"""How pictures get into a graph of others: said, guessed with the reason, or asked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dense_perception.core.card_specs import InputSpec
from dense_perception.core.errors import InputError
from dense_perception.core.printable import printable
from dense_perception.export.foreign.inspect import ForeignGraph
from dense_perception.export.foreign.recipe import (
    GRAY,
    IMAGENET,
    PLAIN,
    WHOLE,
    Facts,
    PictureRecipe,
)

_USUAL_SIDE = 512
_USUAL_MULTIPLE = 32
MOST_PIXELS = 1 << 25
"""8192x4096. The checks keep a handful of such pictures in float32, and run some 20."""
# Means and deviations of bytes are above, what bytes are multiplied with below; 1 / std is between.
_OF_BYTES, _PER_BYTE = 16.0, 0.02


@dataclass(frozen=True)
class Decision:
    """One line of what was settled: what, its value, and why."""

    what: str
    value: str
    why: str


class Settled:
    """What is known, and the decisions that were made of it, in their order."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.decisions: list[Decision] = []

    def note(self, what: str, value: object, why: str) -> None:
        self.decisions.append(Decision(what, _line(_text(value)), _line(why)))


def settle_picture(graph: ForeignGraph, settled: Settled) -> tuple[PictureRecipe, InputSpec]:
    """How pictures get into the graph.

    :raises InputError: if what was said contradicts the graph, or cannot be guessed.
    """
    facts, info = settled.facts, graph.picture
    beside = f" beside {graph.filled}" if graph.filled else ""
    why = f"the graph's only input{beside}"
    if graph.unread:
        why = f"the only input that is read{beside}, left out: {', '.join(graph.unread)}"
    settled.note("picture", f"{info.name} {info.kind} {info.sides}", why)
    if graph.filled:
        settled.note(
            graph.filled, "ones", "every pixel counts, as pictures are not padded in batches"
        )
    layout = _layout(graph, settled)
    channels = facts.channels or "RGB"
    reason = facts.why("channels") or "usual; --channels BGR for OpenCV's order"
    if graph.picture.shape[1 if layout == "NCHW" else 3] == 1:
        if facts.channels is not None and facts.why("channels").startswith("--"):
            raise InputError(
                f"{graph.picture} takes gray pictures, which have no order of colours: leave "
                "--channels out"
            )
        channels, reason = GRAY, "the graph has one channel: 0.299 R + 0.587 G + 0.114 B"
    settled.note("channels", channels, reason)
    pixels, mean, std = _values(graph, layout, settled, gray=channels == GRAY)
    recipe = PictureRecipe(info.name, info.kind, layout, channels, pixels, mean, std)
    return recipe, _input(graph, layout, settled)


def _layout(graph: ForeignGraph, settled: Settled) -> str:
    facts, shape = settled.facts, graph.picture.shape
    first, last = shape[1] == 3, shape[3] == 3
    side = 3
    if not first and not last:
        first, last, side = shape[1] == 1, shape[3] == 1, 1
    if facts.layout is not None:
        wrong = shape[3] if facts.layout == "NHWC" else shape[1]
        if wrong not in (3, 1, None):
            raise InputError(
                f"the layout is said to be {facts.layout}, but {graph.picture} has {wrong} there: "
                "leave --layout out"
            )
        settled.note("layout", facts.layout, facts.why("layout"))
        return facts.layout
    if first != last:
        layout = "NCHW" if first else "NHWC"
        where = "the second" if first else "the last"
        why = f"input {graph.picture.name} is {graph.picture.sides}: {where} side is {side}"
    else:
        layout = "NCHW"
        why = f"input {graph.picture.name} is {graph.picture.sides}; usual for PyTorch's exporters"
    settled.note("layout", layout, why)
    return layout


def _values(
    graph: ForeignGraph, layout: str, settled: Settled, *, gray: bool
) -> tuple[str, tuple[float, float, float], tuple[float, float, float]]:
    """Range of the pixels, mean and standard deviation.

    :raises InputError: if a gray picture is to have three of either, or nothing tells the range.
    """
    facts = settled.facts
    operator, largest = graph.beginning
    pixels, mean, std = facts.pixels, facts.mean, facts.std
    why = facts.why("pixels")
    whole = graph.picture.kind in WHOLE
    if pixels is None and whole:
        pixels, why = "bytes", f"the input is {graph.picture.kind}"
    elif pixels is None and operator:
        pixels = "bytes" if largest > _OF_BYTES or 0 < largest < _PER_BYTE else "unit"
        why = f"the graph begins with {operator} by numbers up to {largest:.3g}"
    elif pixels is None and mean is not None:
        pixels = "bytes" if max(mean) > 1 else "unit"
        why = f"mean is up to {max(mean):g}"
    elif pixels is None and layout == "NHWC":
        raise InputError(
            f"whether {graph.picture.name} wants pixels of 0 to 1, 0 to 255 or -1 to 1 cannot be "
            "told from a graph of this layout: say --pixels unit, bytes or signed"
        )
    elif pixels is None:
        pixels, why = "unit", "usual for PyTorch; --pixels bytes for 0 to 255, signed for -1 to 1"
    settled.note("pixels", pixels, why)
    if mean is None or std is None:
        plain = whole or bool(operator) or pixels == "signed"
        if plain or (facts.pixels is not None and facts.why("pixels").startswith("--")):
            guess, because = (
                PLAIN,
                "nothing but the range"
                if not operator
                else (f"the graph normalises itself: it begins with {operator}"),
            )
        elif gray:
            guess, because = PLAIN, "nothing but the range is usual for gray; --mean and --std"
        else:
            guess, because = IMAGENET, "ImageNet's, usual for PyTorch; --mean and --std for others"
            if pixels == "bytes":
                low, high = guess
                guess = tuple(255 * m for m in low), tuple(255 * s for s in high)  # type: ignore[assignment]
        mean = mean if mean is not None else guess[0]
        std = std if std is not None else guess[1]
        settled.note("mean", mean, facts.why("mean") or because)
        settled.note("std", std, facts.why("std") or because)
    else:
        settled.note("mean", mean, facts.why("mean"))
        settled.note("std", std, facts.why("std"))
    assert pixels is not None
    if gray and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise InputError(
            f"mean {_text(mean)} and std {_text(std)} are said for colours, but the graph takes "
            "gray pictures: give one number three times, --mean 0.5 0.5 0.5, and no --like"
        )
    if whole and (pixels, mean, std) != ("bytes", *PLAIN):
        raise InputError(
            f"{graph.picture.name} takes whole numbers, so nothing can be normalised before it: "
            "leave --pixels, --mean, --std and --like out"
        )
    return pixels, mean, std


def _input(graph: ForeignGraph, layout: str, settled: Settled) -> InputSpec:
    """Size and how a picture gets there."""
    facts, shape = settled.facts, graph.picture.shape
    height, width = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    keeps = facts.resize in ("lower_bound", "minimal")
    said = facts.why("size").startswith("--")
    multiple = facts.multiple or (_USUAL_MULTIPLE if keeps else 1)
    fixed = height is not None and width is not None
    if facts.free and (fixed or not keeps):
        raise InputError(
            f"--size free needs a graph of free sides and a rule that keeps the aspect, got "
            f"{graph.picture} and {facts.resize or 'stretch'}: say --size WxH, or --resize "
            "lower_bound or minimal"
        )
    free = keeps and not fixed and (facts.free or not said)
    if fixed:
        why = f"the graph has this size: {graph.picture.sides}"
        if said and facts.size is not None and facts.size != (width, height):
            got = "x".join(map(str, facts.size))
            raise InputError(
                f"--size is {got}, but the graph takes {width}x{height} alone: leave it "
                "out, or export the network for that size"
            )
    elif facts.size is not None:
        (width, height), why = facts.size, facts.why("size")
    else:
        why = "nothing says another: --size WxH"
        width, height = width or _USUAL_SIDE, height or _USUAL_SIDE
    assert height is not None
    assert width is not None
    if not fixed and (facts.multiple or free) and (height % multiple or width % multiple):
        reason = facts.why("multiple") or "usual where sizes are free"
        raise InputError(
            f"the size is {width}x{height}, but sides have to be multiples of {multiple} "
            f"({reason}): say another --size or --multiple"
        )
    if not (min(height, width) >= 16 and max(height, width) <= 8192):
        raise InputError(
            f"the size is {width}x{height} ({why}), expected sides of 16 to 8192 pixels: "
            + (
                "export the network for another size"
                if fixed
                else "say --layout if they were misread, else --size WxH"
            )
        )
    if height * width > MOST_PIXELS:
        raise InputError(
            f"the size is {width}x{height} ({why}), {height * width / 1e6:.0f} million pixels, "
            f"expected at most {MOST_PIXELS / 1e6:.0f}: "
            + (
                "export the network for a smaller picture, and slide it if need be"
                if fixed
                else "say a smaller one with --size WxH"
            )
        )
    settled.note("size", f"{width}x{height}", why)
    spec = InputSpec(height, width)
    if free:
        settled.note(
            "sizes",
            f"free, multiples of {multiple}",
            "the graph's sides are free and the aspect is kept; --size WxH fixes one",
        )
    resize, why = facts.resize or "stretch", facts.why("resize") or "the simplest; see --resize"
    if keeps and not free:
        resize, why = "stretch", f"one size cannot keep every aspect (else {facts.resize})"
    settled.note("resize", resize, why)
    spec = replace(spec, resize=resize, multiple=multiple if free else 1)
    usual = "linear" if free else "area"
    interpolation = facts.interpolation or usual
    why = facts.why("interpolation") or "the package's usual one"
    if free and interpolation == "area":
        interpolation, why = "linear", f"free sizes are not averaged (else area: {why})"
    settled.note("interpolation", interpolation, why)
    spec = replace(spec, interpolation=interpolation)
    if resize == "letterbox":
        pad, place = facts.pad or (0, 0, 0), facts.place or "centre"
        settled.note("padding", pad, facts.why("pad") or "black; --pad for another value")
        settled.note("place", place, facts.why("place") or "usual; --place corner for top left")
        spec = replace(spec, pad=pad, place=place)
    if facts.dtype is not None:
        settled.note("resized in", facts.dtype, facts.why("dtype"))
        spec = replace(spec, dtype=facts.dtype)
    if graph.picture.kind in WHOLE:
        spec = replace(spec, dtype="uint8")
    return spec


def _line(text: str) -> str:
    """A text with names from files in it as one line of a table."""
    return " ".join(printable(text).split())


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    return str(value)
