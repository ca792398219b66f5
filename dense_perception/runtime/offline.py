"""A whole recording through a perceiver: every frame answered and written, and a summary."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass

from tqdm import tqdm

from dense_perception.core.errors import BackendError, InputError
from dense_perception.core.prediction import DepthKind
from dense_perception.core.printable import counted
from dense_perception.media.sinks import Sink
from dense_perception.media.sources import Source
from dense_perception.runtime.mailbox import StageTimer
from dense_perception.runtime.perceiver import Perceiver

_MEANING = {
    DepthKind.METRIC: "metres",
    DepthKind.RELATIVE_INVERSE: "inverse depth up to scale and shift, not metres",
    DepthKind.RELATIVE: "depth up to scale, not metres",
}


@dataclass(frozen=True)
class RunSummary:
    """What a run did; ``run.json`` holds these fields under their names.

    ``depth`` says what the depth's numbers mean, ``None`` without depth. ``stages`` are median and
    95th percentile in milliseconds by stage. ``intrinsics_assumed`` counts answers that a guessed
    field of view changed, ``scaled_down`` those smaller than their frame because of the limit.
    """

    model: str
    backend: str
    selection: str
    answered: int
    depth: str | None
    intrinsics_assumed: int
    scaled_down: int
    seconds: float
    stages: dict[str, dict[str, float]]
    problems: list[str]
    interrupted: bool

    def text(self, hfov_deg: float, max_side: int) -> str:
        """The summary for eyes; the two settings are named where they changed answers."""
        times = ", ".join(f"{k} {v['median_ms']:.1f} ms" for k, v in self.stages.items())
        lines = [
            f"{counted(self.answered, 'frame')} answered in {self.seconds} s ({times})",
            f"model {self.model}: {self.selection}",
        ]
        if self.intrinsics_assumed:
            lines.append(
                f"{counted(self.intrinsics_assumed, 'frame')} had no calibration: a horizontal "
                f"field of view of {hfov_deg:g} degrees was assumed, and metres scale with it"
            )
        if self.scaled_down:
            lines.append(
                f"scaled down to {max_side} pixels on the longest side: "
                f"{counted(self.scaled_down, 'answer')}; --max-side allows more"
            )
        if self.depth not in (None, "metres"):
            lines.append(f"depth/*.npy holds {self.depth}")
        return "\n".join(lines)


def answer_source(
    perceiver: Perceiver,
    source: Source,
    sink: Sink,
    *,
    every: int = 1,
    limit: int | None = None,
    progress: bool = False,
) -> RunSummary:
    """Answer each ``every``-th frame of ``source``, at most ``limit``, and write it to ``sink``.

    A frame that cannot be answered is among the summary's ``problems`` and the next one follows.
    Ctrl-C ends the run; what was answered is written. ``sink`` is closed in the end. ``progress``
    shows a bar on a terminal.

    :raises DensePerceptionError: if an answer cannot be written.
    """
    timer = StageTimer(window=1_000_000)
    failed: list[str] = []
    answered = assumed = scaled_down = 0
    interrupted = False
    taken = None if source.total is None else -(-source.total // every)
    total = min((count for count in (taken, limit) if count is not None), default=None)
    items = itertools.islice(itertools.islice(source, 0, None, every), limit)
    full_size, longest = perceiver.output_size == "input", perceiver.max_output_side
    start = time.perf_counter()
    bar = tqdm(total=total, unit="frame", disable=None if progress else True, file=sys.stderr)
    try:
        for item in items:
            try:
                prediction = perceiver(item.frame)
            except (InputError, BackendError) as error:
                failed.append(f"{item.name}: {error}")
                continue
            sink.write(item, prediction)
            timer.add_all(prediction.timings_ms)
            assumed += prediction.intrinsics_assumed
            scaled_down += full_size and max(item.frame.width, item.frame.height) > longest
            answered += 1
            bar.update()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
        sink.close()
    problems = [*source.problems, *failed]
    if interrupted:
        problems.append("interrupted; what was answered is written")
    if answered == 0 and not problems:
        problems.append("there was no frame to answer")
    card = perceiver.card
    return RunSummary(
        model=card.name,
        backend=perceiver.backend.description,
        selection=perceiver.selection.summary(),
        answered=answered,
        depth=_MEANING[card.depth.kind] if card.depth else None,
        intrinsics_assumed=assumed if card.input.focal or sink.uses_camera else 0,
        scaled_down=scaled_down,
        seconds=round(time.perf_counter() - start, 2),
        stages={
            stage: {"median_ms": round(value.median_ms, 2), "p95_ms": round(value.p95_ms, 2)}
            for stage, value in timer.summary().items()
        },
        problems=problems,
        interrupted=interrupted,
    )
