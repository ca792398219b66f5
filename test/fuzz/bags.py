"""Bags as recorders leave them and as nobody should make them: MCAP and SQLite, cut and forged."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dense_perception.core.errors import InputError
from dense_perception.media.bag_reader import BagReader
from dense_perception.media.sources import BagSource
from dense_perception.media.stored import zstd_module
from test.fuzz.mutations import NUMBERS, ODD_TEXTS, ODD_VALUES, damaged, damaged_data, pick
from test.fuzz.pictures import valid
from test.support.bags import START_NS, TYPES, picture_messages, stamped_header, write_bag

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, CHUNK_INDEX, FOOTER = 0x03, 0x04, 0x05, 0x06, 0x08, 0x02
Record = tuple[int, bytes]


class Bags:
    """A dozen valid bags, of each input one is copied and damaged."""

    def __init__(self, folder: Path) -> None:
        self._scratch = folder / "bag"
        self._made = folder / "made"
        self._made.mkdir()
        self._bags = [*_recorded(self._made), *_own_mcap(self._made)]

    def make(self, rng: np.random.Generator) -> Callable[[], str]:
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.copytree(pick(rng, self._bags), self._scratch)
        files = sorted(self._scratch.iterdir())
        victim = pick(rng, files)
        _by_structure(victim)(victim, rng)
        if rng.random() < 0.3:
            victim.write_bytes(damaged(victim.read_bytes(), rng))
        path = self._scratch if rng.random() < 0.7 else pick(rng, sorted(self._scratch.iterdir()))
        as_pictures = rng.random() < 0.5
        return lambda: _read(path, as_pictures)


def _read(path: Path, as_pictures: bool) -> str:
    if as_pictures:
        source = BagSource(path)
        try:
            count = sum(1 for _ in source)
            return "answered" if count and not source.problems else "salvaged"
        finally:
            source.close()
    with BagReader(path) as bag:
        for message in bag.messages():
            try:
                bag.deserialize(message)
            except InputError:
                continue
        return "salvaged" if bag.problems else "answered"


def _messages() -> list[Any]:
    rng = np.random.default_rng(5)
    messages = picture_messages(6, 16, 12)
    for index in range(4):
        time_ns = START_NS + index * 25_000_000
        stamp = stamped_header(time_ns)
        data = np.frombuffer(valid(".jpg", rng), np.uint8)
        small = TYPES.types["sensor_msgs/msg/CompressedImage"](stamp, "jpeg", data)
        messages.append(("/small/compressed", "sensor_msgs/msg/CompressedImage", time_ns, small))
    return sorted(messages, key=lambda each: each[2])


def _recorded(folder: Path) -> Iterator[Path]:
    """Written by the ``rosbags`` library: both storages in every mode of compression."""
    for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        for mode in (CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE):
            path = folder / f"{plugin.name}_{mode.name}".lower()
            if plugin is StoragePlugin.MCAP and mode is CompressionMode.FILE:
                continue  # the library has no such thing
            yield write_bag(path, _messages(), plugin=plugin, compression=mode)


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _own_mcap(folder: Path) -> Iterator[Path]:
    """In chunks of three messages, with and without compression and index."""
    for compression in ("", "lz4", "zstd"):
        path = folder / f"chunked_{compression or 'plain'}"
        path.mkdir()
        (path / "bag.mcap").write_bytes(mcap(_records(), compression))
        yield path


def _records() -> list[Record]:
    kinds = sorted({(topic, kind) for topic, kind, _, _ in _messages()})
    records: list[Record] = []
    for key, (topic, kind) in enumerate(kinds, 1):
        schema = struct.pack("<H", key) + _text(kind) + _text("ros2msg") + _text("")
        channel = struct.pack("<HH", key, key) + _text(topic) + _text("cdr") + struct.pack("<I", 0)
        records += [(SCHEMA, schema), (CHANNEL, channel)]
    keys = {topic: key for key, (topic, _) in enumerate(kinds, 1)}
    for number, (topic, kind, time_ns, message) in enumerate(_messages()):
        head = struct.pack("<HIQQ", keys[topic], number, time_ns, time_ns)
        records.append((MESSAGE, head + bytes(TYPES.serialize_cdr(message, kind))))
    return records


def _pack(data: bytes, compression: str) -> bytes:
    if compression == "lz4":
        from lz4.frame import compress

        return bytes(compress(data))
    return bytes(zstd_module().compress(data)) if compression == "zstd" else data


def mcap(
    records: list[Record],
    compression: str = "",
    change_chunk: Callable[[bytes, bytes], bytes] = lambda head, packed: head + packed,
) -> bytes:
    """A whole file of chunks of a few records; ``change_chunk`` gets a chunk's head and content."""
    out = MAGIC + record(0x01, _text("") + _text("fuzz"))
    index = b""
    for start in range(0, len(records), 9):
        plain = b"".join(record(*each) for each in records[start : start + 9])
        packed = _pack(plain, compression)
        head = struct.pack("<QQQI", START_NS, START_NS + 10**9, len(plain), 0)
        head += _text(compression) + struct.pack("<Q", len(packed))
        chunk = record(CHUNK, change_chunk(head, packed))
        entry = struct.pack("<4Q", START_NS, START_NS + 10**9, len(out), len(chunk))
        index += record(CHUNK_INDEX, entry + struct.pack("<IQ", 0, 0) + _text(compression))
        out += chunk
    footer = record(FOOTER, struct.pack("<QQI", len(out), 0, 0))
    return out + index + footer + MAGIC


def _by_structure(path: Path) -> Callable[[Path, np.random.Generator], None]:
    if path.name == "metadata.yaml":
        return _metadata
    if path.suffix == ".mcap":
        return _forged_mcap if path.name == "bag.mcap" else _lying_mcap
    return _sqlite if path.suffix == ".db3" else _packed


def _metadata(path: Path, rng: np.random.Generator) -> None:
    data = yaml.safe_load(path.read_text())
    for _ in range(int(rng.integers(1, 4))):
        data = damaged_data(data, rng)
    path.write_text(yaml.safe_dump(data) if rng.random() < 0.9 else repr(data))


def _lying_mcap(path: Path, rng: np.random.Generator) -> None:
    """A record's opcode or length that is not so, records doubled, gone or in another order."""
    data = path.read_bytes()
    places, position = [], len(MAGIC)
    while position + 9 < len(data):
        places.append(position)
        position += 9 + int.from_bytes(data[position + 1 : position + 9], "little")
    place = pick(rng, places)
    end = place + 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    changed = bytearray(data)
    how = int(rng.integers(6))
    if how == 0:
        changed[place] = int(pick(rng, (0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 200)))
    elif how == 1:
        struct.pack_into("<Q", changed, place + 1, pick(rng, (*NUMBERS, 2**63, 2**64 - 1)))
    elif how == 2:
        del changed[place:end]
    elif how == 3:
        changed[place:place] = changed[place:end] * int(pick(rng, (1, 30)))
    elif how == 4:
        changed[place + 9 : end] = damaged(bytes(changed[place + 9 : end]), rng)
    else:
        del changed[int(rng.integers(len(changed))) :]
    path.write_bytes(changed)


def _forged_mcap(path: Path, rng: np.random.Generator) -> None:
    """Chunks that claim other sizes, bombs, and schemas and channels of nowhere."""
    compression = pick(rng, ("", "lz4", "zstd"))
    records = _records()
    how = int(rng.integers(6))
    if how == 0:
        place = int(rng.integers(len(records)))
        opcode, content = records[place]
        records[place] = (opcode, damaged(content, rng))
    elif how == 1:  # a message of zeros that packs to nothing, once or in every chunk
        bomb = struct.pack("<HIQQ", 1, 0, START_NS, START_NS) + bytes(int(10 ** rng.uniform(4, 8)))
        for place in range(8, len(records), int(pick(rng, (9, 1000)))):
            records[place] = (MESSAGE, bomb)
    elif how == 2:
        name, text = pick(rng, ODD_TEXTS), pick(rng, ODD_TEXTS)
        schema = struct.pack("<H", 7) + _text(name) + _text("ros2msg") + _text(text)
        odd = _text(pick(rng, ODD_TEXTS)) + _text(pick(rng, ("cdr", "ros1", "json", *ODD_TEXTS)))
        channel = struct.pack("<HH", 7, 7) + odd + struct.pack("<I", pick(rng, NUMBERS))
        records[:0] = [(SCHEMA, schema), (CHANNEL, channel)]
        records.append((MESSAGE, struct.pack("<HIQQ", 7, 0, 0, 2**64 - 1) + rng.bytes(30)))
    elif how == 3:
        rng.shuffle(records)  # type: ignore[arg-type]

    def lie(head: bytes, packed: bytes) -> bytes:
        if how < 4 or rng.random() < 0.5:
            return head + packed
        changed = bytearray(head)
        struct.pack_into(
            "<Q", changed, int(pick(rng, (0, 8, 16))), pick(rng, (*NUMBERS, 2**64 - 1))
        )
        if how == 5:
            struct.pack_into("<Q", changed, len(head) - 8, pick(rng, NUMBERS))
            packed = damaged(packed, rng)
        return bytes(changed) + packed

    path.write_bytes(mcap(records, compression, lie))


STATEMENTS = (
    "UPDATE messages SET data = ? WHERE id % 3 = 0",
    "UPDATE messages SET timestamp = ? WHERE id % 3 = 0",
    "UPDATE messages SET topic_id = ? WHERE id % 3 = 0",
    "UPDATE topics SET type = ?",
    "UPDATE topics SET name = ? WHERE id = 1",
    "UPDATE topics SET serialization_format = ?",
    "UPDATE topics SET offered_qos_profiles = ?",
    "DELETE FROM messages WHERE id > 3 OR ? IS NULL",
    "INSERT INTO topics SELECT 99, ?, type, serialization_format, '', '' FROM topics LIMIT 1",
)
SCRIPTS = (
    "DROP TABLE messages",
    "DROP TABLE topics",
    "ALTER TABLE messages RENAME TO real; CREATE VIEW messages AS SELECT * FROM real",
    "ALTER TABLE messages RENAME TO real; CREATE VIEW messages AS WITH RECURSIVE c(id) AS "
    "(SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id, 1 AS topic_id, id AS timestamp, "
    "x'00' AS data FROM c",
    "ALTER TABLE messages ADD COLUMN more GENERATED ALWAYS AS (topic_id * 2)",
    "ALTER TABLE topics DROP COLUMN serialization_format",
    "DROP TABLE IF EXISTS message_definitions; CREATE TABLE message_definitions (topic_type, "
    "encoding, encoded_message_definition); INSERT INTO message_definitions VALUES "
    "('sensor_msgs/msg/Image', 'ros2msg', 'x y z'), (7, NULL, zeroblob(100))",
    "INSERT INTO messages SELECT NULL, 1, 2, zeroblob(3000000)",
    "PRAGMA user_version=7; PRAGMA application_id=-1; VACUUM",
)


def _sqlite(path: Path, rng: np.random.Generator) -> None:
    """Rows of other kinds, other tables, and pages whose numbers lie."""
    how = int(rng.integers(3))
    if how < 2:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA journal_mode=MEMORY")
            try:
                if how == 0:
                    plain = [v for v in ODD_VALUES if not isinstance(v, list | dict)]
                    value = pick(rng, [v for v in plain if not isinstance(v, int) or v < 2**63])
                    value = rng.bytes(30) if rng.random() < 0.2 else value
                    connection.execute(pick(rng, STATEMENTS), [value])
                else:
                    connection.executescript(pick(rng, SCRIPTS))
                connection.commit()
            except (sqlite3.Error, OverflowError):
                connection.rollback()
    else:
        data = bytearray(path.read_bytes())
        size = int.from_bytes(data[16:18], "big") or 4096
        page = int(rng.integers(len(data) // size)) * size + (100 if rng.random() < 0.2 else 0)
        # kind of page, free block, cells, content, pointers of cells, and the file's own header
        place = page + int(rng.integers(0, 40))
        number = pick(rng, NUMBERS) & 0xFFFF
        struct.pack_into(">H", data, min(place, len(data) - 2), number)
        if rng.random() < 0.3:
            struct.pack_into(">I", data, int(pick(rng, (16, 28, 32, 36))), pick(rng, NUMBERS))
        path.write_bytes(data)
    if rng.random() < 0.2:
        path.with_name(path.name + "-wal").write_bytes(rng.bytes(int(rng.integers(1, 5000))))


def _packed(path: Path, rng: np.random.Generator) -> None:
    """A packed file: cut, or a bomb of its size."""
    data = path.read_bytes()
    if rng.random() < 0.5:
        path.write_bytes(data[: int(rng.integers(len(data)))])
    else:
        start = MAGIC if ".mcap" in path.name else b"SQLite format 3\0"
        path.write_bytes(_pack(start + bytes(int(10 ** rng.uniform(4, 8.2))), "zstd"))


def target(folder: Path) -> Bags:
    return Bags(folder)
