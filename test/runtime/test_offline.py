"""A whole source through a perceiver whose answers are known, into a sink that remembers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dense_perception.core.camera import Frame
from dense_perception.core.prediction import Prediction
from dense_perception.media.sources import Source, SourceItem
from dense_perception.runtime.offline import answer_source
from dense_perception.runtime.perceiver import Perceiver
from test.support.artefacts import write_red_artefact


class Given(Source):
    """Frames in memory, of a recording that ends early."""

    def __init__(self, frames: list[Frame]) -> None:
        super().__init__()
        self.frames = frames
        self.total = len(frames)

    def __iter__(self) -> Iterator[SourceItem]:
        for index, frame in enumerate(self.frames):
            yield SourceItem(frame, f"frame{index}", index)
        self._problems.note("the recording is cut off")


class Kept:
    """A sink in memory."""

    def __init__(self, *, uses_camera: bool = False) -> None:
        self.uses_camera = uses_camera
        self.answers: dict[str, Prediction] = {}
        self.closed = False

    def write(self, item: SourceItem, prediction: Prediction) -> None:
        self.answers[item.name] = prediction

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def perceiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perceiver]:
    path = tmp_path_factory.mktemp("model") / "red.onnx"
    write_red_artefact(path)
    options = {"backend": "onnxruntime", "threads": 1, "trust_engine": True, "max_output_side": 40}
    with Perceiver.load(path, **options) as loaded:  # type: ignore[arg-type]
        yield loaded


def frames(count: int) -> list[Frame]:
    random = np.random.default_rng(3)
    return [Frame(random.integers(0, 256, (24, 32, 3), np.uint8)) for _ in range(count)]


def test_each_nth_frame_up_to_the_limit(perceiver: Perceiver) -> None:
    given, sink = frames(7), Kept()
    summary = answer_source(perceiver, Given(given), sink, every=2, limit=3)
    assert list(sink.answers) == ["frame0", "frame2", "frame4"]
    assert (summary.answered, summary.scaled_down, summary.interrupted) == (3, 0, False)
    assert sink.closed
    assert summary.problems == []  # the end of the recording was not reached
    assert list(summary.stages) == ["prepare", "infer", "restore"]


def test_what_the_source_says_is_among_the_problems(perceiver: Perceiver) -> None:
    summary = answer_source(perceiver, Given(frames(1)), Kept())
    assert summary.problems == ["the recording is cut off"]
    assert summary.intrinsics_assumed == 1
    assert "1 frame had no calibration" in summary.text(60, 40)
    assert "60 degrees was assumed" in summary.text(60, 40)


def test_larger_frames_are_counted_as_scaled_down(perceiver: Perceiver) -> None:
    large = Frame(np.zeros((48, 64, 3), np.uint8))
    sink = Kept()
    summary = answer_source(perceiver, Given([large, *frames(1)]), sink)
    assert summary.scaled_down == 1
    assert sink.answers["frame0"].width == 40
    assert sink.answers["frame1"].width == 32


def test_a_full_disk_ends_the_run_and_closes_the_sink(perceiver: Perceiver) -> None:
    class Full(Kept):
        def write(self, item: SourceItem, prediction: Prediction) -> None:
            raise OSError("full")

    sink = Full()
    with pytest.raises(OSError, match="full"):
        answer_source(perceiver, Given(frames(2)), sink)
    assert sink.closed
