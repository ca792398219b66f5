"""What a user says of a graph, checked: options as :class:`~..recipe.Facts`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from dense_perception.core.errors import InputError
from dense_perception.core.labels import VOID
from dense_perception.core.prediction import DepthKind
from dense_perception.core.printable import printable, short
from dense_perception.export.foreign.recipe import Facts, Recipe

_OPTIONS = {"outputs": "--graph-output"}
_OF_DEPTH = ("depth_kind", "depth_scale", "depth_shift", "depth_inverse", "restore")
_OF_LABELS = ("scores", "labels", "void", "threshold")
_LONGEST_TEXT = 200


def checked(values: Mapping[str, object]) -> Facts:
    """Facts of options, ``values`` by their names in :class:`Facts`; ``size`` and ``pad`` are as on
    the command line: ``640x480`` or ``free``, and one number.

    :raises InputError: if one is out of range, naming its option.
    """
    found: dict[str, object] = {}
    reasons: dict[str, str] = {}
    for name, value in values.items():
        option = _option(name)
        if name == "size" and value == "free":
            found["free"], reasons["free"] = True, option
            continue
        check = _CHECKS.get(name)
        found[name] = value if check is None else check(option, value)
        reasons[name] = option
    return Facts(origin="the command line", reasons=reasons, **found)  # type: ignore[arg-type]


def _option(name: str) -> str:
    return _OPTIONS.get(name, "--" + name.replace("_", "-"))


def _size(option: str, value: object) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", str(value))
    if sides is None:
        raise InputError(f"{option} is {short(value)}, expected width and height: 640x480, or free")
    return int(sides[1]), int(sides[2])


def _numbers(count: int, least: float, most: float) -> Callable[[str, object], tuple[float, ...]]:
    def check(option: str, value: object) -> tuple[float, ...]:
        numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        fits = len(numbers) == count and all(
            isinstance(each, (int, float)) and least <= each <= most for each in numbers
        )
        if not fits:
            raise InputError(
                f"{option} is {short(value)}, expected {count} numbers from {least:g} to {most:g}"
            )
        return numbers

    return check


def _range(option: str, value: object) -> tuple[float, ...]:
    low, high = _numbers(2, 0, 1e6)(option, value)
    if not low < high:
        raise InputError(f"{option} is {low:g} to {high:g}, expected the smaller number first")
    return low, high


def _one(least: float, most: float) -> Callable[[str, object], float]:
    def check(option: str, value: object) -> float:
        if not (isinstance(value, (int, float)) and least <= value <= most):
            raise InputError(f"{option} is {short(value)}, expected {least:g} to {most:g}")
        return value

    return check


def _pad(option: str, value: object) -> tuple[int, int, int]:
    one = int(_one(0, 255)(option, value))
    return one, one, one


def _several(option: str, value: object) -> tuple[object, ...]:
    assert isinstance(value, (list, tuple))
    return tuple(dict.fromkeys(value))


def _void(option: str, value: object) -> tuple[object, ...]:
    labels = _several(option, value)
    wrong = [each for each in labels if not (isinstance(each, int) and 0 <= each < VOID)]
    if wrong:
        raise InputError(f"{option} is {short(wrong)}, expected labels from 0 to {VOID - 1}")
    return labels


def _words(option: str, value: object) -> str:
    words = " ".join(str(value).split())
    if not 0 < len(words) <= _LONGEST_TEXT:
        raise InputError(f"{option} is {short(value)}, expected 1 to {_LONGEST_TEXT} characters")
    return printable(words, keep="")


def refuse_surplus(given: Facts, recipe: Recipe) -> None:
    """Options that would change nothing: whoever gave them expects something of them.

    :param given: what the command line says, and nothing else.
    :raises InputError: if there is one, saying why it is of no use.
    """
    depth, labels = recipe.depth, recipe.labels
    useless: list[tuple[str, Sequence[str]]] = []
    if depth is None:
        useless.append(("depth, which is not taken from this graph", (*_OF_DEPTH, "depth_range")))
    elif depth.kind is not DepthKind.METRIC:
        useless.append((f"metric depth, this is {depth.kind.value}", ("depth_range",)))
    if labels is None:
        useless.append(("labels, which are not taken from this graph", (*_OF_LABELS, "activation")))
    elif labels.scores != "logits":
        useless.append((f"logits, the graph gives {labels.scores}", ("activation",)))
    if recipe.input.resize != "letterbox":
        useless.append((f"--resize letterbox, here it is {recipe.input.resize}", ("pad", "place")))
    for what, names in useless:
        surplus = [_option(name) for name in names if getattr(given, name) is not None]
        if surplus:
            raise InputError(f"got {', '.join(surplus)}, expected only with {what}: leave it out")


_CHECKS: Mapping[str, Callable[[str, object], object]] = {
    "size": _size,
    "mean": _numbers(3, -1e6, 1e6),
    "std": _numbers(3, 1e-6, 1e6),
    "multiple": _one(1, 1024),
    "pad": _pad,
    "depth_scale": _one(-1e9, 1e9),
    "depth_shift": _one(-1e9, 1e9),
    "depth_range": _range,
    "threshold": _one(0, 1),
    "outputs": _several,
    "void": _void,
    "licence": _words,
}
