"""MCAP chunks: none takes more memory than it has to."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from dense_perception.core.errors import InputError
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.mcap_file import MAGIC, McapFile
from dense_perception.media.stored import zstd_module

FOOTER = b"\x02\x14" + bytes(7 + 20)


@pytest.mark.parametrize("damage", ["none", "message", "cut"])
def test_a_large_chunk_is_never_in_memory_twice(tmp_path: Path, damage: str) -> None:
    """The limit of large ones is far below this chunk, which has no compression."""
    raw_topic = b"\x01\0\x01\0\x02\0\0\0/a\x03\0\0\0cdr" + bytes(4)
    channel = b"\x04" + len(raw_topic).to_bytes(8, "little") + raw_topic
    contents = [np.random.default_rng(n).bytes(12 << 20) for n in range(2)]
    records = channel
    for number, content in enumerate(contents):
        head = struct.pack("<HIQQ", 1, number, number + 1, number + 1)
        records += b"\x05" + (22 + len(content)).to_bytes(8, "little") + head + content
    chunk = struct.pack("<QQQIIQ", 1, 2, len(records), crc32(records), 0, len(records)) + records
    written = bytearray(MAGIC + b"\x06" + len(chunk).to_bytes(8, "little") + chunk)
    if damage == "message":
        written[-1] ^= 1
    file = tmp_path / "bag.mcap"
    file.write_bytes(written[: -(1 << 20)] if damage == "cut" else written + FOOTER + MAGIC)
    del records, chunk, written
    notes: list[str] = []
    with contextlib.closing(McapFile(file, notes.append)) as mcap:
        tracemalloc.start()
        try:
            found = [bytes(data) for _, _, data in mcap.messages({"/a"})]
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()
    expected = contents[:1] if damage == "cut" else contents
    assert [len(data) for data in found] == [len(data) for data in expected]
    assert found[0] == contents[0]
    assert (damage == "message") == (found[-1] != expected[-1])
    assert bool(notes) == (damage != "none")


@pytest.mark.parametrize("claimed", [1 << 10, 1 << 28, 1 << 40])
def test_a_chunk_that_unpacks_without_end_is_left_out(tmp_path: Path, claimed: int) -> None:
    packed = zstd_module().compress(bytes(1 << 28))
    chunk = (
        bytes(16) + claimed.to_bytes(8, "little") + bytes(4) + b"\x04\0\0\0zstd"
        + len(packed).to_bytes(8, "little") + packed
    )  # fmt: skip
    file = tmp_path / "bag.mcap"
    file.write_bytes(MAGIC + b"\x06" + len(chunk).to_bytes(8, "little") + chunk)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="nothing in"):
            BagReader(file)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
