"""The corpus: what models are trained, calibrated and judged on.

A corpus is a folder of tar shards (:mod:`dense_perception.data.shards`) with

* ``corpus.json``: ``schema``, ``name``, ``frames``, ``classes`` (by stored label), ``void`` (the
  label of pixels without a class), ``colours`` (RGB by label), ``licence``, and what the maker
  adds;
* ``manifest.json``: the shards with their sizes and SHA-256, as the WebDataset library's indexed
  reader takes them;
* ``index.npz``: where each frame lies, for access in any order.

The description comes last: a folder without one is not finished. The earlier layout
(:mod:`dense_perception.data.numpy_layout`) is read alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dense_perception.core.errors import TrainingError
from dense_perception.data.description import EARLIER_SCHEMA, read_description
from dense_perception.data.index import TarShards
from dense_perception.data.numpy_layout import NumpyShards
from dense_perception.data.sample import Frames, NamedFrames, Sample

_LONGEST_SCENE = 64


class Corpus:
    """A random-access corpus on disk, of either layout.

    ``description`` is what ``corpus.json`` says. ``width`` and ``height`` are those of every frame,
    0 where they differ.

    :raises TrainingError: if the folder, the description or a shard is missing, cut short or
        contradicts the layout; the message names the file.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.description = read_description(self.root)
        self.width = int(self.description.get("width") or 0)
        self.height = int(self.description.get("height") or 0)
        frames = int(self.description["frames"])
        self._frames: NumpyShards | TarShards
        if self.description["schema"] == EARLIER_SCHEMA:
            self._frames = NumpyShards(self.root, self.width, self.height, frames)
        else:
            void = int(self.description.get("void") or 0)
            self._frames = TarShards(self.root, frames, void, len(self.classes))
        if len(self) == 0:
            raise TrainingError(
                f"{self.root} holds no frames: generate some with "
                "`dense-perception data synthesize`"
            )
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        """Another process opens the files itself, instead of getting a copy of all frames."""
        return Corpus, (self.root,)

    @property
    def name(self) -> str:
        return str(self.description.get("name") or self.root.name)

    @property
    def keys(self) -> Sequence[str]:
        """The name of each frame, unique, in the order of the indices."""
        return self._frames.keys

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels from 1 on; empty where the description names none.

        :raises TrainingError: if they are no list of names.
        """
        given = self.description.get("classes") or []
        if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
            raise TrainingError(f"{self.root}/corpus.json: classes must be a list of names")
        return tuple(given if self.description.get("void") else given[1:])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._frames[index]

    def frame(self, key: str) -> Sample:
        """The frame of that key.

        :raises KeyError: if there is none.
        :raises TrainingError: if it is damaged.
        """
        if not self._rows:
            self._rows = {known: row for row, known in enumerate(self.keys)}
        return self._frames[self._rows[key]]


class Mixture:
    """Several corpora or data sets as one sequence; without shares every frame is equally likely.

    :param shares: by position, the share of the sequence that a corpus makes up, 0 to 1; its frames
        recur in turn as often as that takes. Corpora without one have each of their frames once.
    :raises TrainingError: without a corpus, or if shares leave nothing to the corpora without one.
    """

    def __init__(
        self, corpora: Sequence[NamedFrames], shares: Mapping[int, float] | None = None
    ) -> None:
        if not corpora:
            raise TrainingError("no corpus given: pass --data DIR at least once")
        self.corpora = tuple(corpora)
        self.shares = dict(shares or {})
        once = [len(corpus) for k, corpus in enumerate(corpora) if k not in self.shares]
        left = 1 - sum(self.shares.values())
        if self.shares and not (all(s > 0 for s in self.shares.values()) and left > 0 and once):
            raise TrainingError(
                f"the corpora's shares are {list(self.shares.values())}, expected numbers above 0 "
                "that add up to less than 1, and a corpus without a share for the rest"
            )
        lengths = [
            max(1, round(self.shares[k] / left * sum(once))) if k in self.shares else len(corpus)
            for k, corpus in enumerate(corpora)
        ]
        self._starts = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        corpus = self.corpora[which]
        return corpus[(index - int(self._starts[which])) % len(corpus)]

    def key_of(self, index: int) -> str:
        """What a frame is called in messages: its corpus's name and its key."""
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        corpus = self.corpora[which]
        return f"{corpus.name}/{corpus.keys[(index - int(self._starts[which])) % len(corpus)]}"

    def describe(self) -> list[dict[str, Any]]:
        """Provenance of each corpus, plain data for the card."""
        described = []
        for k, corpus in enumerate(self.corpora):
            entry: dict[str, Any] = {"name": corpus.name, "frames": len(corpus)}
            if k in self.shares:
                entry["share"] = self.shares[k]
            description = corpus.description if isinstance(corpus, Corpus) else {}
            for key in ("generator", "seed", "command", "licence"):
                if key in description:
                    entry[key] = _without_folders(description[key])
            described.append(entry)
        return described


@runtime_checkable
class _Named(Protocol):
    def key_of(self, index: int, /) -> str: ...


@dataclass(frozen=True)
class Span:
    """Frames ``start`` to ``stop`` (excluded) of another data set."""

    frames: Frames
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.frames[self.start + index]

    def key_of(self, index: int) -> str:
        """What a frame is called in messages."""
        return key_of(self.frames, self.start + index)


def key_of(frames: Frames, index: int) -> str:
    """What a frame is called in messages: by its own name, else by its place."""
    if isinstance(frames, _Named):
        return frames.key_of(index)
    if isinstance(frames, Corpus):
        return f"{frames.name}/{frames.keys[index]}"
    return f"frame {index}"


def split(frames: Frames, held_out: float) -> tuple[Span, Span]:
    """All but the last share, and the last share, which begins with a scene or a recording.

    Of one long recording the part before it shows the same places: hold out another one.

    :raises TrainingError: if there are too few frames for two parts.
    """
    if len(frames) < 2:
        raise TrainingError(f"{len(frames)} frames cannot be split: generate more")
    cut = min(len(frames) - 1, round(len(frames) * (1 - held_out)))
    cut = _beginning(frames, cut) or cut
    return Span(frames, 0, cut), Span(frames, cut, len(frames))


def _beginning(frames: Frames, cut: int) -> int:
    """Where the scene or the recording of frame ``cut`` begins; 0 if that is too far before it."""
    shown = _shown(frames[cut])
    if shown == (None, ""):
        return cut
    at = cut
    while at > max(0, cut - _LONGEST_SCENE) and _shown(frames[at - 1]) == shown:
        at -= 1
    return at if at > max(0, cut - _LONGEST_SCENE) else 0


def _shown(sample: Sample) -> tuple[int | None, str]:
    return sample.scene, sample.recording


def evenly(length: int, most: int) -> list[int]:
    """Indices of ``most`` frames spread over ``length`` of them; of all if there are fewer."""
    count = min(most, length)
    return [round(i * length / count) for i in range(count)]


def _without_folders(value: Any) -> Any:
    """A command as anyone could give it: paths of the machine that ran it become bare names."""
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if word.startswith("/") else word for word in value.split(" "))
