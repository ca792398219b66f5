"""Bad corpora, through the commands a user runs: refused or warned, and the culprit named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from dense_perception import cli
from dense_perception.data.sample import Sample
from test.data.test_summary import above, constant, empty, good, mixed, shuffled, stored, void
from test.support.corpora import write_corpus
from test.support.threads import one_thread
from test.training.small_run import CONFIG

SIZE = {"width": 64, "height": 32}
NAMES = ["none", "wall", "floor"]


def recipe(path: Path, *, labels: bool) -> Path:
    """A network that is made in no time; with labels it is Segmenter's linear decoder."""
    config = replace(CONFIG, steps=1, **SIZE).to_dict() | {"stages": [{**SIZE, "batch": 2}]}
    if labels:
        network = {"family": "segmenter", "variant": "tiny", "decoder": "linear", "layers": 1}
        half = {"mean": [0.5] * 3, "std": [0.5] * 3}
        config |= {"network": {**network, **SIZE, **half}, "rates": {}, "fixed_statistics": []}
        config |= {"feature_mix": []}
    path.write_text(yaml.safe_dump(config))
    return path


def tried(
    tmp_path: Path, corpora: list[Path], capsys: pytest.CaptureFixture[str], *, labels: bool
) -> tuple[tuple[int, str], tuple[int, str]]:
    """Exit code and text of ``data info`` and of ``train`` on these corpora."""
    names = [str(corpus) for corpus in corpora]
    found = []
    data = [word for name in names for word in ("--data", name)]
    config = str(recipe(tmp_path / "tiny.yaml", labels=labels))
    train = ["train", config, *data, "--out", str(tmp_path / "run"), "--threads", "1"]
    train += ["--validation", names[0], "--validation-frames", "1"]
    for words in (["data", "info", *names], train):
        with one_thread():
            code = cli.main(words)
        shown = capsys.readouterr()
        found.append((code, shown.out + shown.err))
    return found[0], found[1]


def millimetres_here_and_there(samples: list[Sample]) -> list[Sample]:
    return [replace(s, depth_m=s.depth_m * (1 if k % 5 else 1000)) for k, s in enumerate(samples)]


def no_camera(samples: list[Sample]) -> list[Sample]:
    """Focal lengths as some formats have them, in widths of the image."""
    cameras = [replace(s.intrinsics, fx=0.9, fy=0.9) for s in samples[:2]]
    return [
        *(replace(s, intrinsics=camera) for s, camera in zip(samples, cameras, strict=False)),
        *samples[2:],
    ]


# Where `data info` has other words: it sees more frames, and labels may be all there is.
INFO_SAYS = {
    "median depth of .* expected metres: millimetres": "units are mixed: .* in 32 frames",
    "no depth at all": "pixels without depth 100.00 %",
}


@pytest.mark.parametrize(
    ("spoil", "labels", "says", "is_refused"),
    [
        (mixed, False, "median depth of .* expected metres: millimetres", True),
        (millimetres_here_and_there, False, "units are mixed: .* in 8 frames", False),
        (shuffled, False, "depth fits its picture in .* of .* frames only", False),
        (lambda s: [replace(e, depth_m=0 * e.depth_m) for e in s], False, "no depth at all", True),
        (empty, False, r"1 of 40 frames have neither depth nor labels.*k003", False),
        (constant, False, "1 of 40 frames show nothing but one colour.*k000", False),
        (no_camera, False, "2 of 40 frames have the intrinsics of no camera.*k000.*of view", False),
        (void, True, r"labels of 0 \(none\) alone", True),
        (above, True, "k005.labels.png has label 9, expected up to 2", True),
    ],
)
def test_content_that_is_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[Sample]], list[Sample]],
    labels: bool,
    says: str,
    is_refused: bool,
) -> None:
    stored(tmp_path / "bad", spoil(good(40)), classes=NAMES)
    (_, info), (code, trained) = tried(tmp_path, [tmp_path / "bad"], capsys, labels=labels)
    # What labels mean is judged against the model that is to learn them, so by train alone.
    if not labels:
        known = INFO_SAYS.get(says, says)
        assert re.search(known, " ".join(info.split())), info
    assert code == (2 if is_refused else 0), trained
    assert re.search(says, " ".join(trained.split())), trained
    assert "Traceback" not in trained + info


def test_depth_with_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_corpus(tmp_path / "bad", frames=8)
    path = root / "shard_00000/depth_m.npy"
    depth_m = np.load(path)
    depth_m[1, 20:40] = np.nan
    depth_m[2, 5] = np.inf
    np.save(path, depth_m)
    (_, info), (code, trained) = tried(tmp_path, [root], capsys, labels=False)
    for text in (info, trained):
        assert "2 of 8 frames have NaN or infinite depth" in " ".join(text.split())
    # What is not finite is no truth: the run goes on.
    assert code == 0, trained
    assert "nan" not in (tmp_path / "run/log.jsonl").read_text().lower()


def test_a_shard_that_is_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "bad", good(8))
    path = tmp_path / "bad/shard-00000.tar"
    path.write_bytes(path.read_bytes()[:5000])
    for code, text in tried(tmp_path, [tmp_path / "bad"], capsys, labels=False):
        assert code == 2
        assert "shard-00000.tar has 5000 bytes" in text


def test_class_lists_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "a", good(4), classes=NAMES)
    stored(tmp_path / "b", good(4), classes=["none", "floor", "wall"])
    corpora = [tmp_path / "a", tmp_path / "b"]
    (_, info), (code, trained) = tried(tmp_path, corpora, capsys, labels=True)
    assert "b has another list of classes than a (label 1 is 'floor' instead of 'wall')" in info
    assert code == 2
    assert "b has the classes ['floor', 'wall'], another corpus ['wall', 'floor']" in trained
