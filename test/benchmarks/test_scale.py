"""The command on a small corpus written by hand: a floor and a wall from a level camera."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception.cli import main
from dense_perception.core.camera import Intrinsics
from dense_perception.core.labels import LABEL_SETS
from dense_perception.data.description import write_description
from dense_perception.data.sample import Sample
from dense_perception.data.shards import write_shard


def write_corpus(folder: Path, frames: int = 4) -> None:
    rows = np.mgrid[:120, :160][0]
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 60, 1.4 * 130 / (rows - 59.5), np.inf)
    depth_m = np.minimum(floor, 6.0)
    names = LABEL_SETS["generated_rooms"].labels
    labels = np.where(floor < 6, names.index("floor") + 1, names.index("wall") + 1)
    shard = folder / "shard_00000"
    shard.mkdir(parents=True)
    np.save(shard / "depth_m.npy", np.repeat(depth_m[None], frames, 0).astype(np.float16))
    np.save(shard / "labels.npy", np.repeat(labels[None], frames, 0).astype(np.uint8))
    np.save(shard / "intrinsics.npy", np.tile(np.float32([130.0, 130.0, 79.5, 59.5]), (frames, 1)))
    # Looking along world x: optical z to x, x to -y, y to -z.
    pose = [0, 0, 1.4, -0.5, 0.5, -0.5, 0.5]
    np.save(shard / "camera.npy", np.tile(pose, (frames, 1)).astype(np.float32))


def test_every_source_finds_the_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "rooms")
    assert main(["benchmark", "scale", str(tmp_path / "rooms"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 6
    for row in rows:
        assert row["frames"] == 4
        assert row["answered"] >= 0.5  # a floor may be refused, never got wrong
        assert row["p95 error"] < 0.05, row


def test_a_corpus_of_tar_shards_gives_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "old")
    shard = {path.stem: np.load(path) for path in (tmp_path / "old/shard_00000").iterdir()}
    samples = [
        Sample(
            np.zeros((120, 160, 3), np.uint8),
            shard["depth_m"][k].astype(np.float32),
            Intrinsics(160, 120, 130, 130, 79.5, 59.5),
            shard["labels"][k],
            camera_7=shard["camera"][k],
        )
        for k in range(4)
    ]
    write_shard(tmp_path / "new", 0, samples)
    write_description(tmp_path / "new", {})
    answers = []
    for name in ("old", "new"):
        assert main(["benchmark", "scale", str(tmp_path / name), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    for old, new in zip(*answers, strict=True):
        assert new["source"] == old["source"]
        assert new["median error"] == pytest.approx(old["median error"], abs=0.01)


def test_a_folder_without_a_corpus_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "scale", str(tmp_path)]) == 2
    assert "expected a corpus" in capsys.readouterr().err
    assert main(["benchmark", "scale", str(tmp_path), "--pitch-noise", "-1"]) == 2
    assert "--pitch-noise is -1.0, expected degrees" in capsys.readouterr().err
