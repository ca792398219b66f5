"""Reads a map of a Doom WAD file: walls, their sectors, and where things stand.

Lengths are map units; 32 units are taken as one metre. Format: the Unofficial Doom Specs 1.666,
chapters 2 to 4.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.core.storage import read_file

UNITS_PER_M = 32.0
_NO_SIDE = 0xFFFF
# Line actions that open or close a door, with and without keys.
_DOOR_ACTIONS = frozenset(
    {1, 2, 3, 4, 16, 26, 27, 28, 29, 31, 32, 33, 34, 42, 46, 50, 61, 63, 75, 76, 86, 90, 99, 103}
    | set(range(105, 119))
    | set(range(133, 138))
)
_LIQUIDS = (b"NUKAGE", b"FWATER", b"LAVA", b"BLOOD", b"SLIME")


def _record(**fields: str) -> np.dtype:
    return np.dtype(list(fields.items()))


_LUMPS = {
    "THINGS": _record(x="<i2", y="<i2", angle="<u2", type="<u2", flags="<u2"),
    "LINEDEFS": _record(
        v1="<u2", v2="<u2", flags="<u2", action="<u2", tag="<u2", right="<u2", left="<u2"
    ),
    "SIDEDEFS": _record(x="<i2", y="<i2", upper="S8", lower="S8", middle="S8", sector="<u2"),
    "VERTEXES": _record(x="<i2", y="<i2"),
    "SECTORS": _record(
        floor="<i2",
        ceiling="<i2",
        floor_flat="S8",
        ceiling_flat="S8",
        light="<i2",
        special="<u2",
        tag="<u2",
    ),
}


@dataclass(frozen=True)
class DoomMap:
    """One map. Lines run from ``start_n2`` to ``end_n2``; a side's sector is -1 where it has none.

    ``grating_n`` marks lines one can partly see through; heights are those at the start of play.
    """

    name: str
    start_n2: np.ndarray
    end_n2: np.ndarray
    right_n: np.ndarray
    left_n: np.ndarray
    door_n: np.ndarray
    grating_n: np.ndarray
    floor_s: np.ndarray
    ceiling_s: np.ndarray
    sky_s: np.ndarray
    liquid_s: np.ndarray
    things_t2: np.ndarray


def read_directory(data: bytes, name: str) -> list[tuple[str, int, int]]:
    """(lump name, offset, size) of a WAD, in order.

    :raises InputError: when it is no WAD or is cut short.
    """
    if len(data) < 12 or data[:4] not in (b"IWAD", b"PWAD"):
        raise InputError(f"{name} is not a Doom WAD file: expected it to begin with IWAD or PWAD")
    count, offset = struct.unpack_from("<ii", data, 4)
    if count < 0 or offset < 0 or offset + 16 * count > len(data):
        raise InputError(f"{name} is cut short: its directory lies outside the file; get it anew")
    lumps = []
    for k in range(count):
        start, size, raw = struct.unpack_from("<ii8s", data, offset + 16 * k)
        if start < 0 or size < 0 or start + size > len(data):
            raise InputError(f"{name} is cut short: lump {k} lies outside the file; get it anew")
        lumps.append((raw.rstrip(b"\0").decode("latin1"), start, size))
    return lumps


def map_names(path: Path) -> list[str]:
    """The maps of a WAD, in order."""
    data = read_file(Path(path))
    lumps = read_directory(data, str(path))
    return [
        name
        for (name, _, size), (after, _, _) in itertools.pairwise(lumps)
        if size == 0 and after == "THINGS"
    ]


def read_map(path: Path, name: str) -> DoomMap:
    """One map of a WAD.

    :raises InputError: when the WAD has no such map or it is inconsistent.
    """
    data = read_file(Path(path))
    lumps = read_directory(data, str(path))
    start = next((k for k, lump in enumerate(lumps) if lump[0] == name), None)
    if start is None:
        raise InputError(f"{path} has no map {name}; it has {', '.join(map_names(path)) or 'none'}")
    parts = {}
    for lump, offset, size in lumps[start + 1 : start + 11]:
        if lump in _LUMPS and lump not in parts:
            kind = _LUMPS[lump]
            parts[lump] = np.frombuffer(data, kind, size // kind.itemsize, offset)
    if set(parts) != set(_LUMPS):
        missing = ", ".join(sorted(set(_LUMPS) - set(parts)))
        raise InputError(f"map {name} of {path} lacks {missing}: it is no map in Doom's format")
    lines, sides, sectors = parts["LINEDEFS"], parts["SIDEDEFS"], parts["SECTORS"]
    vertices = np.stack([parts["VERTEXES"]["x"], parts["VERTEXES"]["y"]], 1).astype(np.float64)
    try:
        right, left = _sectors_of(lines["right"], sides), _sectors_of(lines["left"], sides)
        start_n2, end_n2 = vertices[lines["v1"]], vertices[lines["v2"]]
    except IndexError as error:
        raise InputError(f"map {name} of {path} is inconsistent ({error}); get it anew") from error
    if max(right.max(initial=-1), left.max(initial=-1)) >= len(sectors):
        raise InputError(f"map {name} of {path} names a sector it does not have; get it anew")
    two_sided = (lines["right"] != _NO_SIDE) & (lines["left"] != _NO_SIDE)
    middles = np.array([_has_middle(side, sides) for side in lines["right"]])
    middles |= np.array([_has_middle(side, sides) for side in lines["left"]])
    things = np.stack([parts["THINGS"]["x"], parts["THINGS"]["y"]], 1).astype(np.float64)
    return DoomMap(
        name,
        start_n2,
        end_n2,
        right,
        left,
        np.isin(lines["action"], list(_DOOR_ACTIONS)),
        two_sided & middles,
        sectors["floor"].astype(np.float64),
        sectors["ceiling"].astype(np.float64),
        sectors["ceiling_flat"] == b"F_SKY1",
        np.array([flat.startswith(_LIQUIDS) for flat in sectors["floor_flat"].tolist()]),
        things,
    )


def _sectors_of(side_n: np.ndarray, sides: np.ndarray) -> np.ndarray:
    out = np.full(len(side_n), -1, np.int64)
    has = side_n != _NO_SIDE
    out[has] = sides["sector"][side_n[has]]
    return out


def _has_middle(side: int, sides: np.ndarray) -> bool:
    return side != _NO_SIDE and sides["middle"][side] not in (b"-", b"")
