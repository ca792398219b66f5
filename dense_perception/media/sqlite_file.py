"""SQLite files of rosbag2, whole, cut, or left with a write-ahead log by a recorder that died.

Nothing beside the file is written, and nothing in it is believed: only real tables are read, a
row that is no message is left out, and no query runs for ever.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

from dense_perception.core.errors import InputError
from dense_perception.media.stored import (
    MAX_UNPACKED_BYTES,
    ZSTD_MAGIC,
    Note,
    StoredMessage,
    StoredTopic,
    ros2_type,
    unpacked_limit,
    zstd_module,
)

_START = b"SQLite format 3\0"
_MAX_TEXT = 1 << 20
_STEPS_BETWEEN_CHECKS = 100_000
_MAX_SECONDS_PER_ROW = 20.0


class SqliteFile:
    """One ``.db3`` file; what is damaged goes to ``note`` and the rest is read.

    :raises InputError: if it is no SQLite file with the tables of rosbag2.
    """

    def __init__(self, path: Path, note: Note) -> None:
        self.path = path
        self._note = note
        self._stack = ExitStack()
        try:
            self._connection = self._open()
            self._topics = self._read_topics()
        except sqlite3.Error as error:
            self.close()
            raise InputError(self._damage(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    def topics(self) -> Iterator[tuple[StoredTopic, int]]:
        """Every topic with its number of messages."""
        try:
            counts = dict(
                self._connection.execute("SELECT topic_id, count(*) FROM messages GROUP BY 1")
            )
        except sqlite3.Error:  # cut: count what there is
            counts = {}
            by_topic = {id(topic): key for key, topic in self._topics.items()}
            for topic, _, _ in self.messages(None):
                key = by_topic[id(topic)]
                counts[key] = counts.get(key, 0) + 1
        for key, topic in self._topics.items():
            yield topic, counts.get(key, 0)

    def messages(
        self, names: Collection[str] | None, start_ns: int | None = None
    ) -> Iterator[StoredMessage]:
        """By time; in the order they were written where the index of times is lost."""
        keys = [key for key, topic in self._topics.items() if names is None or topic.name in names]
        seen: set[int] = set()
        if not self._is_cut:
            try:
                yield from self._rows(keys, "timestamp", seen, start_ns)
                return
            except sqlite3.Error as error:
                self._note(self._damage(error))
        try:
            yield from self._rows(keys, "rowid", seen, start_ns)
        except sqlite3.Error as error:
            self._note(self._damage(error))
        else:
            if self._is_cut:
                self._note(self._damage("it is shorter than it says"))

    def time_span(self) -> tuple[int, int] | None:
        if self._is_cut:  # the index of times may be what is lost
            return None
        try:
            (found,) = self._connection.execute(
                "SELECT min(timestamp), max(timestamp) FROM messages "
                "WHERE typeof(timestamp) = 'integer'"
            )
        except sqlite3.Error:
            return None
        return None if None in found else (int(found[0]), int(found[1]))

    def _rows(
        self, keys: list[int], order: str, seen: set[int], start_ns: int | None
    ) -> Iterator[StoredMessage]:
        marks = ",".join("?" * len(keys))
        since = "" if start_ns is None else f"AND timestamp >= {start_ns:d} "
        rows = self._connection.execute(
            "SELECT rowid, topic_id, timestamp, CASE WHEN typeof(data) = 'blob' AND "
            f"length(data) <= {MAX_UNPACKED_BYTES} AND typeof(timestamp) = 'integer' THEN data END "
            f"FROM messages WHERE topic_id IN ({marks}) {since}ORDER BY {order}",
            keys,
        )
        topics = self._topics
        wrong = 0
        for row, key, time_ns, data in rows:
            self._rows_read += 1
            if row in seen:
                continue
            seen.add(row)
            if data is not None and data.startswith(ZSTD_MAGIC):  # CDR itself starts with 0
                data = _plain(data)
            if data:
                yield topics[key], time_ns, data
            else:
                wrong += 1
        if wrong:
            self._note(
                f"{self.path.name} is damaged: {wrong} of its rows hold no message and were left "
                "out: copy the bag again if you have it whole"
            )

    def _open(self) -> sqlite3.Connection:
        path = self.path
        log = path.with_name(path.name + "-wal")
        self._is_cut = False
        if log.is_file() and log.stat().st_size > 0:
            # Reading a log makes SQLite write beside the file, so both are copied.
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_")))
            path = folder / "bag.db3"
            try:
                shutil.copyfile(self.path, path)
                shutil.copyfile(log, folder / "bag.db3-wal")
            except OSError as error:
                raise InputError(
                    f"cannot copy {self.path.name} and its write-ahead log to {folder}: "
                    f"{error.strerror or error}: free some space or set TMPDIR"
                ) from error
            options = "mode=rw"
        else:
            self._check_header()
            options = "mode=ro&immutable=1"
        # Whoever reads takes turns: a recording may be read on by another thread.
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?{options}", uri=True, check_same_thread=False
        )
        self._stack.callback(connection.close)
        self._rows_read, self._watched = 0, (-1, 0.0)
        connection.set_progress_handler(self._takes_too_long, _STEPS_BETWEEN_CHECKS)
        # Lets SQLite open a file shorter than its header claims; nothing is written.
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _check_header(self) -> None:
        with open(self.path, "rb") as stream:
            head = stream.read(32)
        if not head.startswith(_START):
            raise InputError(
                f"{self.path.name} starts with {head[:8].hex(' ') or 'nothing'}, expected an "
                "SQLite file: copy the recording again, or give another file"
            )
        page = int.from_bytes(head[16:18], "big")
        size = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
        self._is_cut = self.path.stat().st_size < size

    def _takes_too_long(self) -> bool:
        row, since = self._watched
        now = time.monotonic()
        if row != self._rows_read:
            self._watched = (self._rows_read, now)
            return False
        return now - since > _MAX_SECONDS_PER_ROW

    def _read_topics(self) -> dict[int, StoredTopic]:
        columns = {name: self._columns(name) for name in ("topics", "messages")}
        definitions: dict[str, tuple[str, str]] = {}
        with suppress(sqlite3.Error, InputError):  # the table came with Iron
            self._columns("message_definitions")
            definitions = {
                str(name): (str(kind), str(text))
                for name, kind, text in self._connection.execute(
                    "SELECT topic_type, encoding, encoded_message_definition FROM "
                    f"message_definitions WHERE length(encoded_message_definition) < {_MAX_TEXT}"
                )
            }
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns["topics"] else "''"
        topics = {}
        for key, name, msgtype, encoding, offered in self._connection.execute(
            f"SELECT id, name, type, serialization_format, {qos} FROM topics"
        ):
            kind, text = definitions.get(msgtype, ("", ""))
            topics[int(key)] = StoredTopic(
                str(name), ros2_type(str(msgtype)), str(encoding), kind, text, offered
            )
        return topics

    def _columns(self, table: str) -> set[str]:
        """The columns of a real table: a view or a computed column can run for ever."""
        found = self._connection.execute(
            "SELECT type, rootpage FROM sqlite_master WHERE name = ?", [table]
        ).fetchall()
        columns = self._connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
        if len(found) != 1 or found[0][0] != "table" or not found[0][1]:
            got = f"is a {found[0][0]}" if found and found[0][0] != "table" else "is missing"
            raise InputError(
                f"{self.path.name} is no recording: {table!r} {got}, expected a table of rosbag2: "
                "give another file"
            )
        if any(column[6] for column in columns):
            raise InputError(
                f"{self.path.name} is no recording: {table!r} has computed columns, expected those "
                "of rosbag2: give another file"
            )
        return {str(column[1]) for column in columns}

    def _damage(self, cause: object) -> str:
        return (
            f"{self.path.name} is cut off or damaged ({cause}); what came before was read: copy "
            "the bag again if you have it whole"
        )


def _plain(data: bytes) -> bytes:
    """A compressed message; empty where it is damaged.

    One that unpacks to more than :func:`unpacked_limit` counts as damaged.
    """
    limit = min(unpacked_limit(len(data)), MAX_UNPACKED_BYTES)
    unpacker = zstd_module().ZstdDecompressor()
    try:
        plain = bytes(unpacker.decompress(data, limit))
    except Exception:  # the standard library's and the backport's errors differ
        return b""
    return plain if unpacker.eof else b""
