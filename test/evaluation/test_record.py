"""Result bags beside a report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from dense_perception.core.errors import InputError
from dense_perception.evaluation.request import Request, evaluate
from dense_perception.evaluation.truth import TruthOptions
from dense_perception.media.bag_reader import BagReader
from test.support.walks import RUN, STEP_NS, walk

pytestmark = pytest.mark.usefixtures("own_cache")


def test_result_bags_have_the_original_stamps(tmp_path: Path, model: str) -> None:
    bag, out = walk(tmp_path / "bag"), tmp_path / "out"
    truth = TruthOptions(limit=3)
    evaluate(Request((model,), (str(bag),), RUN, truth, out=out, record=True))
    with BagReader(out / "recordings" / "bag") as reader:
        counts = {topic.name: topic.count for topic in reader.topics}
        assert counts["/truth/depth"] == counts["/red_depth_fp32/depth"] == 3
        assert {"/image/compressed", "/camera_info", "/red_depth_fp32/depth/error"} <= set(counts)
        headers = [
            reader.deserialize(message).header
            for message in reader.messages(["/red_depth_fp32/depth"])
        ]
    stamps = [header.stamp for header in headers]
    assert [s.sec * 10**9 + s.nanosec for s in stamps] == [STEP_NS, 2 * STEP_NS, 3 * STEP_NS]
    layout = json.loads((out / "recordings" / "evaluation_foxglove.json").read_text())
    panels = {key: each["imageMode"]["imageTopic"] for key, each in layout["configById"].items()}
    rows = [[panels[key] for key in stacked(row, "row")] for row in stacked(layout["layout"])]
    assert rows == [
        ["/image/compressed", "/truth/depth/color"],
        ["/red_depth_fp32/depth/color", "/red_depth_fp32/depth/error"],
    ]
    rviz = yaml.safe_load((out / "recordings" / "evaluation.rviz").read_text())
    displays = rviz["Visualization Manager"]["Displays"]
    fixed = rviz["Visualization Manager"]["Global Options"]["Fixed Frame"]
    assert {header.frame_id for header in headers} == {fixed}
    shown = [each["Topic"]["Value"] for each in displays]
    assert sorted(shown) == sorted(topic for row in rows for topic in row)
    assert set(shown) <= set(counts)


def test_a_rerun_recording_has_every_frame(tmp_path: Path, model: str) -> None:
    """By Rerun's own reader; CI lacks it, as it takes 500 MB."""
    pytest.importorskip("rerun", reason="Rerun is not installed: pip install '.[rerun]'")
    bag, out = walk(tmp_path / "bag"), tmp_path / "out"
    evaluate(Request((model,), (str(bag),), RUN, TruthOptions(limit=3), out=out, record=True))
    words = [sys.executable, "-m", "rerun", "rrd", "print", str(out / "recordings" / "bag.rrd")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    found: Counter[str] = Counter()
    line = r"with (\d+) rows .* - (/\S+) - (?:data )?columns(.*)"
    for rows, entity, columns in re.findall(line, said):
        # Rerun 0.23 has rows of their own that say what an entity is.
        found[entity] += 0 if re.fullmatch(r": \[\w+Indicator\]", columns.strip()) else int(rows)
    for entity in ("image", "truth/depth", "red_depth_fp32/depth"):
        assert found[f"/camera/{entity}"] == 3
    assert found["/red_depth_fp32/depth/error"] == 3


def stacked(node: Any, direction: str = "column") -> list[Any]:
    """The parts that a layout puts below or beside each other, each of the same size."""
    if isinstance(node, str) or node["direction"] != direction:
        return [node]
    rest = stacked(node["second"], direction)
    assert node["splitPercentage"] == pytest.approx(100 / (1 + len(rest)))
    return [node["first"], *rest]


def test_a_record_without_a_folder_is_refused_before_anything_is_scored() -> None:
    with pytest.raises(InputError, match="--out"):
        evaluate(Request(models=("no_such_model",), data=("/nowhere",), record=True))
