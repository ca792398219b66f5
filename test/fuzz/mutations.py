"""How bytes and plain data are damaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")

NUMBERS = (0, 1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
"""What length fields are set to."""
ODD_TEXTS = ("", "a", "\0", "x" * 5000, "../../etc/passwd", "\x1b[2J", "\u202e", "%s%n", "1e999")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 1e308, float("nan"),
    float("inf"), float("-inf"), [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": 1}}},
    list(range(1000)), *ODD_TEXTS,
)  # fmt: skip


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: flipped bits, bytes set, a number written, a cut, a piece gone or doubled."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not changed:
            break
        place = int(rng.integers(len(changed)))
        length = min(int(2 ** rng.uniform(0, 10)), len(changed) - place)
        how = int(rng.integers(7))
        if how == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif how == 1:
            changed[place] = int(rng.integers(256))
        elif how == 2:
            size = int(pick(rng, (1, 2, 4, 8)))
            order = pick(rng, ("little", "big"))
            number = pick(rng, NUMBERS) & (256**size - 1)
            changed[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif how == 3:
            del changed[place:]
        elif how == 4:
            del changed[place : place + length]
        elif how == 5:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place : place + length] = rng.bytes(length)
    return bytes(changed)


def damaged_data(value: Any, rng: np.random.Generator) -> Any:
    """Plain data with one entry somewhere changed, gone, renamed or of another kind."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        changed = dict(value)
        key = pick(rng, list(changed))
        how = rng.random()
        if how < 0.75:
            changed[key] = damaged_data(changed[key], rng)
        elif how < 0.85:
            del changed[key]
        else:
            changed[pick(rng, ("", "name", 7, None, "x" * 300, True))] = changed.pop(key)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        items = list(value)
        place = int(rng.integers(len(items)))
        items[place] = damaged_data(items[place], rng)
        return items if rng.random() < 0.9 else items * 50
    return pick(rng, ODD_VALUES)
