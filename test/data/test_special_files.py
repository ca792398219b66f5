"""Pipes, devices, sockets and links to themselves in the place of every kind of file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.strict import yaml_file
from dense_perception.data.corpus import Corpus
from dense_perception.data.files import read_image
from dense_perception.data.folder_pairs import FolderPairs
from dense_perception.data.numpy_layout import open_shard
from dense_perception.data.shards import scan
from dense_perception.evaluation.segmentation import read_labels
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.calibration_file import read_calibration
from dense_perception.media.sources import open_source
from dense_perception.synthetic.doom_map import map_names
from dense_perception.training.config import TrainingConfig

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "labels": ("a.png", lambda path: read_labels(path, 0)),
    "picture": ("a.png", lambda path: open_source(str(path))),
    "video": ("a.mp4", lambda path: open_source(str(path))),
    "bag": ("a.mcap", BagReader),
    "calibration": ("a.yaml", read_calibration),
    "training": ("a.yaml", TrainingConfig.from_yaml),
    "card": ("a.yaml", lambda path: yaml_file(path, "the model card", DensePerceptionError)),
    "model": ("a.onnx", OnnxFile.read),
    "frames": ("frames.json", lambda path: FolderPairs(path.parent)),
    "corpus": ("corpus.json", lambda path: Corpus(path.parent)),
    "image": ("a.png", read_image),
    "shard": ("a.tar", scan),
    "array": ("rgb.npy", lambda path: open_shard(path.parent, ("rgb",), ())),
    "map": ("a.wad", map_names),
}
EXPECTED = {
    "pipe": "is a pipe, expected a regular file",
    "socket": "is a socket, expected a regular file",
    "device": "is a device, expected a regular file",
    "loop": "Too many levels of symbolic links",
}


def put(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        monkeypatch.chdir(path.parent)  # a socket's address is short
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(path.name)


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("reader", READERS)
def test_each_reader_refuses_them_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, kind: str
) -> None:
    name, read = READERS[reader]
    put(tmp_path / name, kind, monkeypatch)
    with pytest.raises(DensePerceptionError, match=EXPECTED[kind]):
        read(tmp_path / name)
