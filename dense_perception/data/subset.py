"""Parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from dense_perception.core.errors import TrainingError
from dense_perception.data.corpus import Frames, Sample


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


def split(frames: Frames, held_out: float) -> tuple[Span, Span]:
    """All but the last share, and the last share; scenes are stored in order, so few are shared.

    :raises TrainingError: if there are too few frames for two parts.
    """
    if len(frames) < 2:
        raise TrainingError(f"{len(frames)} frames cannot be split: generate more")
    cut = min(len(frames) - 1, round(len(frames) * (1 - held_out)))
    return Span(frames, 0, cut), Span(frames, cut, len(frames))


def evenly(length: int, most: int) -> list[int]:
    """Indices of ``most`` frames spread over ``length`` of them; of all if there are fewer."""
    count = min(most, length)
    return [round(i * length / count) for i in range(count)]
