"""Reads rosbag2 bags (MCAP or SQLite, compressed too), whole or damaged; needs no ROS."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from dense_perception.core.errors import InputError
from dense_perception.ros.mcap_salvage import SalvagedMessage, salvage_mcap


@dataclass(frozen=True, slots=True)
class BagTopic:
    """``msgtype`` is ``package/msg/Name``; ``qos`` is what its publishers offered, if known."""

    name: str
    msgtype: str
    count: int
    qos: tuple[Any, ...] = ()


class BagReader:
    """A bag's topics and its raw messages in order of time; a context manager.

    A folder without ``metadata.yaml`` and a file that was cut off are read as far as they are
    whole; ``problem`` then says what is wrong, and is empty for a whole bag.

    :raises InputError: if there is no bag at ``path``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.problem = ""
        self.topics: tuple[BagTopic, ...] = ()
        self.start_ns = self.end_ns = 0
        self._reader: Any = None
        self._files = _storage_files(self.path)
        try:
            self._open_whole()
        except Exception as error:
            self._open_damaged(error)

    @property
    def message_count(self) -> int:
        return sum(topic.count for topic in self.topics)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[BagTopic, int, bytes]]:
        """Topic, log time in nanoseconds and CDR bytes of each message on one of ``topics``.

        Never raises for a damaged bag: it ends where the bag does, and ``problem`` says why.
        """
        by_name = {topic.name: topic for topic in self.topics if topic.name in topics}
        if self._reader is None:
            for message in self._salvaged():
                if message.topic in by_name:
                    yield by_name[message.topic], message.time_ns, message.data
            return
        wanted = [each for each in self._reader.connections if each.topic in by_name]
        if not wanted:
            return
        try:
            for connection, time_ns, data in self._reader.messages(wanted):
                yield by_name[connection.topic], time_ns, data
        except Exception as error:
            self.problem = f"{self.path} is damaged: {error}"

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open_whole(self) -> None:
        from rosbags.rosbag2 import Reader

        whole_folder = self.path.is_dir() and (self.path / "metadata.yaml").is_file()
        if not whole_folder and len(self._files) > 1:
            raise InputError("metadata.yaml is missing")
        reader = Reader(self.path if whole_folder else self._files[0])
        reader.open()
        self._reader = reader
        counts: Counter[tuple[str, str]] = Counter()
        qos: dict[str, tuple[Any, ...]] = {}
        for each in reader.connections:
            counts[each.topic, each.msgtype] += each.msgcount
            offered = getattr(each.ext, "offered_qos_profiles", None)
            qos.setdefault(each.topic, tuple(offered) if isinstance(offered, list) else ())
        self.topics = tuple(
            BagTopic(name, kind, count, qos[name]) for (name, kind), count in counts.items()
        )
        self.start_ns, self.end_ns = reader.start_time, reader.end_time
        if any(path.suffix == ".db3" for path in self._files):
            self._check_sqlite()

    def _check_sqlite(self) -> None:
        """A database that was cut opens without complaint and fails at its first query."""
        next(self._reader.messages(self._reader.connections), None)

    def _open_damaged(self, error: Exception) -> None:
        self.close()
        counts: Counter[tuple[str, str]] = Counter()
        times: list[int] = []
        for message in self._salvaged():
            counts[message.topic, message.msgtype] += 1
            times.append(message.time_ns)
        self.topics = tuple(BagTopic(name, kind, count) for (name, kind), count in counts.items())
        if times:
            self.start_ns, self.end_ns = min(times), max(times) + 1
        if not self.problem:
            self.problem = f"{self.path} is not a whole bag: {error}"
        if not counts:
            raise InputError(f"{self.problem}: nothing in it can be read") from error

    def _salvaged(self) -> Iterator[SalvagedMessage]:
        for path in self._files:
            try:
                yield from salvage_mcap(path) if path.suffix == ".mcap" else _salvage_sqlite(path)
            except (InputError, OSError, sqlite3.Error) as error:
                self.problem = str(error)


def _storage_files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"there is no bag {path}: check the path")
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in (".mcap", ".db3"))
        files = files or sorted(path.glob("*.zstd"))
        if not files:
            raise InputError(
                f"{path} holds no .mcap or .db3 file, expected a rosbag2 folder: check the path"
            )
        return files
    if path.suffix not in (".mcap", ".db3"):
        raise InputError(
            f"{path} is not a rosbag2 bag, expected a folder with metadata.yaml, or an .mcap or "
            ".db3 file"
        )
    return [path]


def _salvage_sqlite(path: Path) -> Iterator[SalvagedMessage]:
    """Rows in the order they were written, until one cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            # Without this, SQLite refuses a file that is shorter than its header says.
            database.execute("PRAGMA writable_schema=ON")
            topics = {
                key: (name, kind)
                for key, name, kind in database.execute("SELECT id, name, type FROM topics")
            }
            for key, time_ns, data in database.execute(
                "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            ):
                yield SalvagedMessage(*topics[key], time_ns, data)
    except (sqlite3.Error, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
