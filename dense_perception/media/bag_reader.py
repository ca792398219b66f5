"""rosbag2 recordings without ROS: MCAP or SQLite, compressed or not, whole or cut in half."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dense_perception.core.errors import InputError
from dense_perception.media.mcap_salvage import scan_mcap, zstd_module

_STORAGE = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_MAX_MESSAGE_BYTES = 1 << 30
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic: its name, ``package/msg/Type``, and how many messages (``None``: not known).

    ``qos``: what its publishers offered, as ``rosbags`` gives it, where the bag says so.
    """

    name: str
    msgtype: str
    count: int | None
    qos: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class BagMessage:
    """One recorded message: when it was received (nanoseconds), and its CDR bytes."""

    topic: str
    msgtype: str
    time_ns: int
    data: bytes = field(repr=False)


class BagReader:
    """Reads a bag folder, or one of its files, in time order.

    A damaged bag is read as far as it goes; ``problems`` then says what was lost. Use as a context
    manager, or call :meth:`close`.

    :raises InputError: if there is no bag at ``path``, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._stack = ExitStack()
        self._definitions: dict[str, tuple[str, str]] = {}
        self._typestore: Any = None
        self._whole: Any = None
        self._parts: list[_Part] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    @property
    def topics(self) -> tuple[BagTopic, ...]:
        """Every topic, sorted by name."""
        return self._topics

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """The messages of all or of the given topics, by time; may be called again."""
        if self._whole is not None:
            wanted = [c for c in self._whole.connections if topics is None or c.topic in topics]
            if not wanted:
                return
            last: dict[str, int] = {}
            try:
                for connection, time_ns, data in self._whole.messages(wanted):
                    last[connection.topic] = time_ns
                    yield BagMessage(connection.topic, connection.msgtype, time_ns, bytes(data))
            except GeneratorExit:
                raise
            except Exception as error:
                self._note(f"{self.path.name} is damaged: {error}")
                yield from self._beyond_damage({each.topic for each in wanted}, last)
            return
        for part in self._parts:
            for message in part.messages(self):
                if topics is None or message.topic in topics:
                    yield message

    def deserialize(self, message: BagMessage) -> Any:
        """The message as an object with the fields of its ROS type; arrays are read-only.

        :raises InputError: if the type is unknown or the bytes do not fit it.
        """
        typestore = self._types(message.msgtype)
        try:
            return typestore.deserialize_cdr(message.data, message.msgtype)
        except Exception as error:
            raise InputError(
                f"a message of {message.topic} is damaged, or of another {message.msgtype} than "
                f"this package knows: {error}"
            ) from error

    def _open(self) -> None:
        if not self.path.exists():
            raise InputError(f"there is no bag {self.path}: give a bag folder, .mcap or .db3 file")
        from rosbags.rosbag2 import Reader

        try:
            reader = Reader(self.path)
            reader.open()
        except Exception as error:
            self._open_parts(error)
        else:
            self._stack.callback(reader.close)
            self._whole = reader
            self._topics = tuple(
                BagTopic(name, info.msgtype or "", info.msgcount, _offered_qos(info.connections))
                for name, info in sorted(reader.topics.items())
            )
            for connection in reader.connections:
                definition = connection.msgdef
                self._define(connection.msgtype, definition.format.name, definition.data)

    def _open_parts(self, cause: Exception) -> None:
        """Neither index nor metadata can be trusted: go through the files themselves."""
        files = _storage_files(self.path)
        if not files:
            raise InputError(
                f"{self.path} is not a rosbag2 recording ({cause}): give a bag folder, .mcap or "
                ".db3 file"
            ) from cause
        self._parts = [_Part(self._unpacked(file)) for file in files]
        seen: dict[str, BagTopic] = {}
        for message in self.messages():
            before = seen.get(message.topic)
            count = 1 + (before.count or 0) if before else 1
            seen[message.topic] = BagTopic(message.topic, message.msgtype, count)
        self._topics = tuple(topic for _, topic in sorted(seen.items()))
        if not seen:
            reasons = "; ".join(self.problems) or str(cause)
            raise InputError(f"nothing in {self.path} can be read: {reasons}") from cause
        if not self.problems:
            self._note(f"{self.path.name} has no usable metadata ({cause}); its messages were read")

    def _beyond_damage(self, topics: Collection[str], last: dict[str, int]) -> Iterator[BagMessage]:
        """What the index could not reach, read record by record from the files."""
        for file in _storage_files(self.path):
            for message in _Part(self._unpacked(file)).messages(self):
                if message.topic in topics and message.time_ns > last.get(message.topic, -1):
                    yield message

    def _unpacked(self, path: Path) -> Path:
        if path.suffix != ".zstd":
            return path
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_"))
        target = Path(folder) / path.stem
        unpacker = zstd_module().ZstdDecompressor()
        with open(path, "rb") as packed, open(target, "wb") as plain:
            try:
                while not unpacker.eof and (block := packed.read(1 << 20)):
                    plain.write(unpacker.decompress(block))
            except Exception as error:
                self._note(f"{path.name} is damaged: {error}")
        return target

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _define(self, msgtype: str, kind: str, definition: str) -> None:
        if definition:
            self._definitions.setdefault(msgtype, (kind, definition))

    def _types(self, msgtype: str) -> Any:
        """The common types of ROS 2, with the bag's own definitions added where it has them."""
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

        if self._typestore is None:
            self._typestore = get_typestore(Stores.LATEST)
        if msgtype not in self._typestore.fielddefs and msgtype in self._definitions:
            kind, definition = self._definitions[msgtype]
            try:
                if kind.upper().endswith("IDL"):
                    types = get_types_from_idl(definition)
                else:
                    types = get_types_from_msg(definition, msgtype)
                known = self._typestore.fielddefs
                self._typestore.register({k: v for k, v in types.items() if k not in known})
            except Exception as error:
                raise InputError(f"the definition of {msgtype} in the bag is damaged") from error
        return self._typestore


class _Part:
    """One storage file of a bag whose metadata or index is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def messages(self, bag: BagReader) -> Iterator[BagMessage]:
        is_sqlite = self.path.suffix == ".db3"
        try:
            yield from self._sqlite(bag) if is_sqlite else self._mcap(bag)
        except (InputError, OSError, sqlite3.Error) as error:
            bag._note(str(error) if isinstance(error, InputError) else f"{self.path.name}: {error}")

    def _mcap(self, bag: BagReader) -> Iterator[BagMessage]:
        for channel, time_ns, data in scan_mcap(self.path):
            bag._define(channel.msgtype, channel.definition_format, channel.definition)
            yield BagMessage(channel.topic, channel.msgtype, time_ns, data)

    def _sqlite(self, bag: BagReader) -> Iterator[BagMessage]:
        connection = sqlite3.connect(f"file:{self.path}?mode=ro&immutable=1", uri=True)
        try:
            # Lets SQLite open a file shorter than its header claims; nothing is written.
            connection.execute("PRAGMA writable_schema=ON")
            topics = {
                key: (name, msgtype)
                for key, name, msgtype in connection.execute("SELECT id, name, type FROM topics")
            }
            # By row id: the index on the time stamps is the first thing a cut file lacks.
            rows = connection.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for key, time_ns, data in rows:
                plain = _plain(bytes(data))
                if key in topics and plain:
                    yield BagMessage(*topics[key], time_ns, plain)
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path.name} is cut off or damaged ({error}); what came before was read: "
                "copy the bag again if you have it whole"
            ) from error
        finally:
            connection.close()


def _plain(data: bytes) -> bytes:
    """A message as recorded, unpacked where messages were compressed; empty where it is damaged.

    One that unpacks to more than 1 GiB counts as damaged: a few bytes of zstd can ask for any size.
    """
    if not data.startswith(_ZSTD_MAGIC):  # CDR itself starts with 0
        return data
    unpacker = zstd_module().ZstdDecompressor()
    try:
        plain = bytes(unpacker.decompress(data, _MAX_MESSAGE_BYTES))
    except Exception:  # the standard library's and the backport's errors differ
        return b""
    return plain if unpacker.eof else b""


def _offered_qos(connections: Collection[Any]) -> tuple[Any, ...]:
    offered = [getattr(each.ext, "offered_qos_profiles", None) for each in connections]
    return tuple(qos for each in offered if isinstance(each, list) for qos in each)


def _storage_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.name.endswith(_STORAGE)]
        return sorted(files, key=lambda file: (len(file.name), file.name))
    return [path] if path.name.endswith(_STORAGE) else []
