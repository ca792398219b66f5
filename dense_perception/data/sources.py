"""Opens whatever frames can be read from: corpora, folders, public data sets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.storage import user_path
from dense_perception.data.convert import convert
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import DESCRIPTION_FILE
from dense_perception.data.folder_pairs import FRAMES_FILE, FolderPairs
from dense_perception.data.sample import NamedFrames
from dense_perception.data.sets.files import FileSet
from dense_perception.data.sets.indoor import CocoDoom, NyuDepth, Replica, Taskonomy, TumRgbd
from dense_perception.data.sets.labels import Ade20k, CocoPanoptic, CocoStuff, PascalContext
from dense_perception.data.sets.outdoor import Cityscapes, Eth3d, KittiEigen
from dense_perception.data.sets.things import CocoThings
from dense_perception.media.bag_reader import is_bag

_NAMED, _MOST_LOOKED_AT = 8, 200
# Of an earlier corpus: what is counted anew, or says how it was stored.
_RENEWED = ("schema", "frames", "frames_per_shard")


SETS: dict[str, Callable[[Path], NamedFrames]] = {
    "nyu": NyuDepth,
    "nyu_train": partial(NyuDepth, split="train"),
    "nyu_test": partial(NyuDepth, split="test"),
    "kitti": KittiEigen,
    "eth3d": Eth3d,
    "tum": TumRgbd,
    "ade20k": Ade20k,
    "ade20k_train": partial(Ade20k, split="training"),
    "pascal_context": PascalContext,
    "pascal_context_train": partial(PascalContext, split="train"),
    "cityscapes": Cityscapes,
    "cityscapes_train": partial(Cityscapes, split="train"),
    "coco_stuff": CocoStuff,
    "coco_stuff_train": partial(CocoStuff, split="train2017"),
    "coco_panoptic": CocoPanoptic,
    "coco_panoptic_train": partial(CocoPanoptic, split="train2017"),
    "coco_things": CocoThings,
    "coco_things_train": partial(CocoThings, split="train2017"),
    "taskonomy": Taskonomy,
    "replica": Replica,
    "cocodoom": CocoDoom,
    "folder": FolderPairs,
}
"""Readers of public data sets by the word before the colon: ``nyu:FILE``."""


def open_frames(text: str, *, unit_m: float = 0.001) -> NamedFrames:
    """The frames at ``text``: a folder with a corpus of either layout, or with images; or
    ``SET:PATH`` for a data set of :data:`SETS` in its own layout.

    :param unit_m: metres of a step of depth images in a folder of images.
    :raises InputError: if it is none of these, or cannot be read.
    :raises TrainingError: if it is a corpus that is damaged.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in SETS:
        place = user_path(rest)
        if not place.exists():
            raise InputError(f"there is no {rest}: check the path of the data set {kind}")
        return SETS[kind](place)
    path = user_path(text)
    if colon and not path.exists():
        raise InputError(f"{kind!r} is no data set, expected one of {', '.join(SETS)}")
    if (path / DESCRIPTION_FILE).exists():
        return Corpus(path)
    if (path / FRAMES_FILE).exists():
        return FolderPairs(path, unit_m)
    if not path.exists():
        raise InputError(f"there is no {text}: check the path")
    raise InputError(
        f"{text} holds neither {DESCRIPTION_FILE} (a corpus) nor {FRAMES_FILE} (colour images with "
        f"depth or labels): {_advice(path)}"
    )


def _advice(path: Path) -> str:
    """What to do with a path that is no source."""
    if (path / "color").is_dir():
        return (
            f"it has a folder color, so write {FRAMES_FILE} beside it, with the calibration of "
            'each frame: {"0000": {"fx": 525, "fy": 525, "cx": 319.5, "cy": 239.5}, ...}'
        )
    inner = [f"{path / name}" for name in _sources_below(path)]
    if inner:
        more = " ..." if len(inner) > _NAMED else ""
        return f"name the sources in it: {' '.join(inner[:_NAMED])}{more}"
    return "check the path, or name a data set, e.g. nyu:FILE"


def _sources_below(path: Path) -> list[str]:
    """Folders of frames and recordings one or two levels below, as relative paths, by name."""
    found: list[str] = []
    for folder in _folders(path):
        inner = [folder, *(_folders(folder) if not _is_source(folder) else [])]
        found += [str(each.relative_to(path)) for each in inner if _is_source(each)]
    return found


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            some = list(itertools.islice(entries, _MOST_LOOKED_AT))
        return sorted(Path(entry.path) for entry in some if entry.is_dir())
    except OSError:
        return []


def _is_source(path: Path) -> bool:
    files = (DESCRIPTION_FILE, FRAMES_FILE)
    return any((path / name).exists() for name in files) or is_bag(path)


def problems_of(frames: NamedFrames) -> list[str]:
    """What a reader left out or replaced, in sentences; of many the first ones."""
    found = list(frames.problems) if isinstance(frames, FileSet) else []
    more = len(found) - _NAMED
    return [*found[:_NAMED], f"and {more} more of these"] if more > 0 else found


def convert_source(
    text: str,
    out: Path,
    *,
    licence: str | None = None,
    unit_m: float = 0.001,
    on_problem: Callable[[str], None] = lambda text: None,
) -> int:
    """Write the frames at ``text`` as the corpus ``out``; returns their number.

    What an earlier corpus says about itself is kept. Depth of a folder keeps its unit.
    ``on_problem`` gets a sentence about each thing that is left out or replaced.

    :raises InputError: see :func:`open_frames` and :func:`~dense_perception.data.convert.convert`.
    """
    frames = open_frames(text, unit_m=unit_m)
    for problem in problems_of(frames):
        on_problem(problem)
    description: dict[str, object] = {"generator": "recording", "licence": licence or "unknown"}
    if frames.classes:
        description["classes"] = ["none", *frames.classes]
    if isinstance(frames, Corpus):
        kept = {key: v for key, v in frames.description.items() if key not in _RENEWED}
        description = {**kept, **({"licence": licence} if licence else {})}
    unit = unit_m if isinstance(frames, FolderPairs) else None
    settings = {"source": Path(text).name, "licence": licence, "unit_m": unit}
    return convert(frames, out, description, settings=settings, unit_m=unit)
