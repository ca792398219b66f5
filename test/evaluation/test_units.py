"""Doubtful truth is named: other units, maps that are empty, videos cut at their start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_perception.core.camera import Frame
from dense_perception.core.prediction import DepthKind, DepthMap
from dense_perception.evaluation.bag_truth import BagTruth
from dense_perception.evaluation.bags import PairSource
from dense_perception.evaluation.contestants import Answer, Entry, RunOptions
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.scoring import FrameScorer
from dense_perception.evaluation.truth import TruthFrame, TruthOptions
from dense_perception.metrics.protocols import Protocol
from test.data.extraction.test_extract import depth_bag
from test.imaging.test_video import COUNT, ENCODERS, KEYFRAMES, encoded
from test.support import recordings


@pytest.mark.parametrize(
    ("factor", "kind", "says"),
    [
        (1, DepthKind.METRIC, []),
        (4, DepthKind.METRIC, []),  # as wrong as a model may be
        (0.1, DepthKind.METRIC, ["about 10 times the true depth"]),
        (100, DepthKind.METRIC, ["about 1/100 of the true depth"]),
        (1000, DepthKind.METRIC, ["median depth is 2000, expected metres", "about 1/1000 of the"]),
        (1000, DepthKind.RELATIVE_INVERSE, ["median depth is 2000, expected metres"]),
    ],
)
def test_units_of_truth(factor: float, kind: DepthKind, says: list[str]) -> None:
    scorer = FrameScorer(Entry("m", "artefact", "m", RunOptions()))
    answer_m = np.full((8, 8), 2, np.float32)
    answer_m[:4] = 1.5
    for index in range(3):
        frame = Frame(np.full((8, 8, 3), 60, np.uint8), index)
        true_m = np.full((8, 8), 2 * factor, np.float32)
        true_m[0] = np.nan
        truth = TruthFrame("bag", str(index), frame, true_m)
        scorer.score(Judge(truth, Protocol()), Answer(DepthMap(answer_m, kind)))
    assert len(scorer.unit_doubts) == len(says)
    assert all(text in line for text, line in zip(says, scorer.unit_doubts, strict=True))


def test_why_a_bag_has_no_truth(tmp_path: Path) -> None:
    """An empty depth image is no missing one."""
    bag = depth_bag(tmp_path / "bag", np.zeros((36, 64)), "16UC1")
    truth = BagTruth(bag, "bag", TruthOptions())
    assert list(truth.frames(truth.parts()[0])) == []
    assert (truth.empty, truth.unmatched) == (2, 0)
    assert truth.why_none().startswith("2 images of /c/image have a partner on /c/depth that holds")
    (doubt,) = truth.problems.lines
    assert "/c/depth is 64x36 but /c/image is 64x48, another aspect ratio" in doubt
    truth.close()


def test_packets_of_a_video_before_a_keyframe_are_counted(tmp_path: Path) -> None:
    """The recording begins between two keyframes; each reading of it counts anew."""
    messages: list[tuple[str, int, Any]] = []
    for index, packet in enumerate(encoded(*ENCODERS[0][::2])[2:]):
        time_ns = 10**18 + index * 100_000_000
        fields = {"header": recordings.header(time_ns), "format": "h264"}
        video = recordings.make(
            recordings.COMPRESSED, **fields, data=np.frombuffer(packet, np.uint8)
        )
        depth = recordings.image(np.ones((48, 64), np.float32), "32FC1", time_ns)
        messages += [("/c/image", time_ns, video), ("/c/depth", time_ns, depth)]
    bag = recordings.write_bag(tmp_path / "bag", messages)
    passed = f"{KEYFRAMES - 2} packets of the video were passed over until a keyframe came"
    truth = BagTruth(bag, "bag", TruthOptions())
    for _ in range(2):
        assert len(list(truth.frames(truth.parts()[0]))) == COUNT - KEYFRAMES
        assert passed in truth.problems.lines
    truth.close()
    pairs = PairSource(bag)
    assert len(list(pairs)) == COUNT - KEYFRAMES
    assert passed in pairs.problems
    pairs.close()
