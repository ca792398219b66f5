"""Opens whatever frames can be read from: corpora, folders, public data sets."""

from __future__ import annotations

from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.storage import user_path
from dense_perception.data.convert import convert
from dense_perception.data.corpus import Corpus
from dense_perception.data.description import DESCRIPTION_FILE
from dense_perception.data.folder_pairs import FRAMES_FILE, FolderPairs
from dense_perception.data.sample import NamedFrames

# Of an earlier corpus: what is counted anew, or says how it was stored.
_RENEWED = ("schema", "frames", "frames_per_shard")


def open_frames(text: str, *, unit_m: float = 0.001) -> NamedFrames:
    """The frames at ``text``: the folder of a corpus of either layout, or of a recording.

    :param unit_m: metres of a step of depth images in a folder of images.
    :raises InputError: if it is neither, or cannot be read.
    :raises TrainingError: if it is a corpus that is damaged.
    """
    path = user_path(text)
    if (path / DESCRIPTION_FILE).exists():
        return Corpus(path)
    if (path / FRAMES_FILE).exists():
        return FolderPairs(path, unit_m)
    raise InputError(
        f"{text} holds neither {DESCRIPTION_FILE} (a corpus) nor {FRAMES_FILE} (colour images with "
        "depth or labels): check the path"
    )


def convert_source(
    text: str, out: Path, *, licence: str | None = None, unit_m: float = 0.001
) -> int:
    """Write the frames at ``text`` as the corpus ``out``; returns their number.

    What an earlier corpus says about itself is kept. Depth of a folder keeps its unit.

    :raises InputError: see :func:`open_frames` and :func:`~dense_perception.data.convert.convert`.
    """
    frames = open_frames(text, unit_m=unit_m)
    description: dict[str, object] = {"generator": "recording", "licence": licence or "unknown"}
    if frames.classes:
        description["classes"] = ["none", *frames.classes]
    if isinstance(frames, Corpus):
        kept = {key: v for key, v in frames.description.items() if key not in _RENEWED}
        description = {**kept, **({"licence": licence} if licence else {})}
    unit = unit_m if isinstance(frames, FolderPairs) else None
    settings = {"source": user_path(text).name, "licence": licence, "unit_m": unit}
    return convert(frames, out, description, settings=settings, unit_m=unit)
