"""What a user says of a graph, checked: options as :class:`~..recipe.Facts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dense_perception.core.errors import InputError
from dense_perception.core.printable import short
from dense_perception.export.foreign.recipe import Facts

_OPTIONS = {"outputs": "--graph-output"}


def checked(values: Mapping[str, object]) -> Facts:
    """Facts of options, ``values`` by their names in :class:`Facts`; ``size`` and ``pad`` are as on
    the command line: ``640x480`` or ``free``, and one number.

    :raises InputError: if one is out of range, naming its option.
    """
    found: dict[str, object] = {}
    reasons: dict[str, str] = {}
    for name, value in values.items():
        option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        if name == "size" and value == "free":
            found["free"], reasons["free"] = True, option
            continue
        check = _CHECKS.get(name)
        found[name] = value if check is None else check(option, value)
        reasons[name] = option
    return Facts(origin="the command line", reasons=reasons, **found)  # type: ignore[arg-type]


def _size(option: str, value: object) -> tuple[int, int]:
    width, _, height = str(value).lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise InputError(f"{option} is {short(value)}, expected width and height: 640x480, or free")
    return int(width), int(height)


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
    return tuple(value)


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
    "void": _several,
}
