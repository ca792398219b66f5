"""Any frames as a corpus of tar shards; a conversion that was stopped goes on where it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from dense_perception.core.errors import InputError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.storage import atomic_write_text
from dense_perception.data.description import DESCRIPTION_FILE, write_description
from dense_perception.data.sample import NamedFrames
from dense_perception.data.shards import encode, shard_path, write_members

SETTINGS_FILE = "settings.json"
_PER_SHARD = 128


def convert(
    frames: NamedFrames,
    out: Path,
    description: Mapping[str, object],
    *,
    settings: Mapping[str, object],
    unit_m: float | None = None,
) -> int:
    """Write ``frames`` as the corpus ``out``, with a progress bar; returns their number.

    :param description: what ``corpus.json`` says beside the counts.
    :param settings: what must be equal for a conversion to be continued; JSON types.
    :param unit_m: metres of a step of the stored depth; None chooses by frame.
    :raises InputError: if there is no frame, or ``out`` holds something else.
    """
    count = len(frames)
    if not count:
        raise InputError(f"{frames.name} holds no frame: check the path and the split")
    _claim(out, {**settings, "frames": count})
    with tqdm(total=count, unit="frame", disable=None, file=sys.stderr) as bar:
        for shard, begin in enumerate(range(0, count, _PER_SHARD)):
            rows = range(begin, min(begin + _PER_SHARD, count))
            path = shard_path(out, shard)
            if not path.exists():  # shards appear whole, and in order
                packed = ((frames.keys[row], encode(frames[row], unit_m=unit_m)) for row in rows)
                write_members(path, packed)
            bar.update(len(rows))
    write_description(out, {"name": out.name, **description})
    return count


def _claim(out: Path, settings: Mapping[str, object]) -> None:
    """
    :raises InputError: if ``out`` holds what another conversion, or somebody else, put there.
    """
    path = out / SETTINGS_FILE
    out.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (out / DESCRIPTION_FILE).exists():
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if found == json.loads(json_text(settings)):
            return
        raise InputError(
            f"{out} was begun from another source or with other options: give those of {path} to "
            "go on, or another --out"
        )
    if any(out.iterdir()):
        raise InputError(f"{out} is not empty: choose another folder for the corpus")
    atomic_write_text(path, json_text(settings, indent=1) + "\n")
