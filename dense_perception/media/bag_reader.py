"""Recordings without ROS: MCAP, SQLite or ROS 1, compressed or not, whole or cut in half.

The storage files are believed, not what is said about them: ``metadata.yaml`` and the indexes are
often missing, edited or of another recording, and only give the files' order and what to expect.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from dense_perception.core.errors import InputError
from dense_perception.core.storage import require_regular_file
from dense_perception.core.strict import check_nesting
from dense_perception.media import foxglove
from dense_perception.media.mcap_file import McapFile
from dense_perception.media.ros1_file import Ros1File
from dense_perception.media.sqlite_file import SqliteFile
from dense_perception.media.stored import (
    Note,
    StorageFile,
    StoredTopic,
    unpacked_limit,
    zstd_module,
)

BAG_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd", ".bag")
_EXPECTED = "give a bag folder or a .mcap, .db3 or .bag file"
_MAX_METADATA_BYTES = 1 << 20
# Ten times faster: the metadata of some hundred topics take seconds otherwise.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_QOS_BYTES = 1 << 16
_KNOWN_ENCODINGS = ("cdr", "ros1")
_KINDS: dict[str, Callable[[Path, Note], StorageFile]] = {".db3": SqliteFile, ".bag": Ros1File}
_FOXGLOVE_ENCODINGS = ("json", "protobuf")
_UNREADABLE = "the bag could not be read to its end ({error}); what came before was read"


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic: its name, ``package/msg/Type``, and how many messages (``None``: not known).

    ``qos``: what its publishers offered, as ``rosbags`` gives it, where the bag says so;
    ``encoding``: how its messages are serialised, ``cdr`` or what :meth:`BagReader.deserialize`
    refuses.
    """

    name: str
    msgtype: str
    count: int | None
    qos: tuple[Any, ...] = ()
    encoding: str = "cdr"


class BagMessage(NamedTuple):
    """One recorded message: when it was received (nanoseconds), and its CDR bytes.

    A tuple, as a bag may hold millions of them.
    """

    topic: str
    msgtype: str
    time_ns: int
    data: bytes
    encoding: str = "cdr"

    def __repr__(self) -> str:
        return (
            f"BagMessage({self.topic!r}, {self.msgtype!r}, {self.time_ns}, {len(self.data)} bytes)"
        )


class BagReader:
    """Reads a bag folder, or one of its files, in time order.

    A damaged bag is read as far as it goes; ``problems`` then says what was lost. Messages of
    ROS 1 are given as those of ROS 2. Use as a context manager, or call :meth:`close`.

    :raises InputError: if there is no bag at ``path``, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._stack = ExitStack()
        self._definitions: dict[str, tuple[str, str]] = {}
        self._typestore: Any = None
        self._files: list[StorageFile] = []
        self._topics: tuple[BagTopic, ...] = ()
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

    def time_span(self) -> tuple[int, int] | None:
        """When recording began and about when it ended, in nanoseconds; None if it is not known."""
        spans = [file.time_span() for file in self._files]
        known = [span for span in spans if span is not None]
        if not known or len(known) != len(spans):
            return None
        return min(first for first, _ in known), max(last for _, last in known)

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """The messages of all or of the given topics, by time; may be called again.

        :param start_ns: leave out what was recorded before; it is not read either, as far as the
            files say where it is.
        """
        came: Counter[str] = Counter()
        for file in self._files:
            try:
                for topic, time_ns, data in file.messages(topics, start_ns):
                    if start_ns is not None and time_ns < start_ns:
                        continue
                    name, encoding = topic.name, topic.encoding
                    came[name] += 1
                    if encoding == "ros1":
                        converted = self._from_ros1(topic, data)
                        if converted is None:
                            continue
                        data, encoding = converted, "cdr"
                    yield BagMessage(name, topic.msgtype, time_ns, data, encoding)
            except (OSError, sqlite3.Error) as error:
                self._note(_UNREADABLE.format(error=error))
        if start_ns is not None:
            return
        expected = {topic.name: topic.count or 0 for topic in self._topics}
        self._miss({n: c for n, c in expected.items() if topics is None or n in topics}, came)

    def deserialize(self, message: BagMessage) -> Any:
        """The message as an object with the fields of its ROS type; arrays are read-only.

        :raises InputError: if the type or the serialisation is unknown, or the bytes do not fit.
        """
        if message.encoding != "cdr":
            if message.msgtype in foxglove.SCHEMAS and message.encoding in _FOXGLOVE_ENCODINGS:
                return foxglove.read(message.msgtype, message.encoding, message.data)
            raise InputError(
                f"{message.topic} is recorded as {message.encoding!r}, expected CDR of ROS 2 or "
                "the serialisation of ROS 1: record or convert it as a ROS message"
            )
        typestore = self._types(message.msgtype)
        try:
            content = typestore.deserialize_cdr(message.data, message.msgtype)
        except Exception as error:
            raise InputError(
                f"a message of {message.topic} is damaged, or of another {message.msgtype} than "
                f"this package knows: {error}"
            ) from error
        if foxglove.is_foxglove(message.msgtype):
            return foxglove.from_ros(message.msgtype, content)
        return content

    def reads(self, topic: BagTopic) -> bool:
        """Whether :meth:`deserialize` knows how the messages of a topic are serialised."""
        return topic.encoding == "cdr" or (
            topic.encoding in _FOXGLOVE_ENCODINGS and topic.msgtype in foxglove.SCHEMAS
        )

    def _open(self) -> None:
        if not self.path.exists() and not self.path.is_symlink():
            raise InputError(f"there is no bag {self.path}: {_EXPECTED}")
        metadata, complaint = _read_metadata(self.path)
        paths, missing = _storage_files(self.path, metadata)
        if not paths:
            raise InputError(f"{self.path} is not a recording: {_EXPECTED}")
        for path in paths:
            try:
                self._files.append(self._storage(path))
            except (InputError, OSError, sqlite3.Error) as error:
                self._note(str(error) if isinstance(error, InputError) else f"{path.name}: {error}")
        self._collect_topics()
        if not any(topic.count for topic in self._topics) and (self.problems or not self._files):
            reasons = "; ".join(self.problems)
            raise InputError(f"nothing in {self.path} can be read: {reasons}")
        if missing:
            self._note(
                f"{self.path.name} lacks {', '.join(missing)}, which its metadata.yaml names: the "
                "other files were read"
            )
        elif complaint and not self.problems and not self._is_ros1():
            self._note(
                f"{self.path.name} has no usable metadata ({complaint}); its messages were read"
            )
        if not missing:
            found = Counter({topic.name: topic.count or 0 for topic in self._topics})
            self._miss(_promised(metadata), found, "metadata.yaml")

    def _is_ros1(self) -> bool:
        return all(isinstance(file, Ros1File) for file in self._files)

    def _storage(self, path: Path) -> StorageFile:
        require_regular_file(path)
        plain = self._unpacked(path)
        file = _KINDS.get(plain.suffix, McapFile)(plain, self._note)
        self._stack.callback(file.close)
        return file

    def _collect_topics(self) -> None:
        found: dict[str, list[tuple[StoredTopic, int]]] = {}
        for file in self._files:
            for topic, count in _noting(file.topics(), self._note):
                found.setdefault(topic.name, []).append((topic, count))
                if topic.definition:
                    known = (topic.definition_format, topic.definition)
                    self._definitions.setdefault(topic.msgtype, known)
        self._topics = tuple(
            BagTopic(
                name,
                parts[0][0].msgtype,
                sum(count for _, count in parts),
                tuple(qos for topic, _ in parts for qos in _offered_qos(topic.qos)),
                "cdr" if parts[0][0].encoding in _KNOWN_ENCODINGS else parts[0][0].encoding,
            )
            for name, parts in sorted(found.items())
        )

    def _miss(
        self, expected: dict[str, int], came: Counter[str], source: str = "its index"
    ) -> None:
        """Say that counts were promised and fewer messages came."""
        short = [
            f"{name} ({came[name]} of {count})"
            for name, count in expected.items()
            if came[name] < count
        ]
        if short and not self.problems:
            self._note(
                f"{self.path.name} lacks messages that {source} promises: {', '.join(short)}; what "
                "is there was read: copy the bag again if you have it whole"
            )

    def _from_ros1(self, topic: StoredTopic, data: bytes) -> bytes | None:
        try:
            return bytes(self._types(topic.msgtype).ros1_to_cdr(data, topic.msgtype))
        except Exception as error:
            self._note(f"{topic.name} cannot be converted from ROS 1 ({error}): it is left out")
            return None

    def _unpacked(self, path: Path) -> Path:
        if path.suffix != ".zstd":
            return path
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bag_"))
        target = Path(folder) / path.stem
        unpacker = zstd_module().ZstdDecompressor()
        left = limit = unpacked_limit(path.stat().st_size)
        with open(path, "rb") as packed, open(target, "wb") as plain:
            block = b""
            while not unpacker.eof and left > 0:
                if unpacker.needs_input and not (block := packed.read(1 << 20)):
                    break  # cut off, as the file inside will show
                try:
                    piece = unpacker.decompress(block, min(left, 1 << 22))
                except Exception:  # the standard library's and the backport's errors differ
                    break
                block = b""
                left -= plain.write(piece)
        if left <= 0 and not unpacker.eof:
            self._note(
                f"{path.name} unpacks to over {limit >> 20} MiB, more than {path.stat().st_size} "
                "bytes of a recording do: unpack it with `zstd -d` if you trust it"
            )
        return target

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _types(self, msgtype: str) -> Any:
        """The common types of ROS 2, with the bag's own definitions added where it has them."""
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

        if self._typestore is None:
            self._typestore = get_typestore(Stores.LATEST)
        if msgtype in self._typestore.fielddefs:
            return self._typestore
        own = self._definitions.get(msgtype, ("msg", foxglove.DEFINITIONS.get(msgtype, "")))
        if own[1]:
            kind, definition = own
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


def is_bag(path: Path) -> bool:
    """Whether a file or folder is named and laid out like a recording."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(_in_folder(path))
    return path.name.endswith(BAG_SUFFIXES)


def _noting(items: Iterator[Any], note: Callable[[str], None]) -> Iterator[Any]:
    """The items up to where the file cannot be read any further."""
    try:
        yield from items
    except (OSError, sqlite3.Error) as error:
        note(_UNREADABLE.format(error=error))


def _read_metadata(path: Path) -> tuple[dict[str, Any], str]:
    """What ``metadata.yaml`` says, and what is wrong with it; both empty for a single file."""
    file = path / "metadata.yaml"
    if not path.is_dir():
        return {}, ""
    if not stat.S_ISREG(file.stat().st_mode if file.exists() else 0):
        return {}, "there is no metadata.yaml"
    try:
        if file.stat().st_size > _MAX_METADATA_BYTES:
            return {}, "its metadata.yaml is over 1 MiB"
        text = file.read_text(encoding="utf-8")
        check_nesting(text, file.name, InputError)
        data = yaml.load(text, _Loader)["rosbag2_bagfile_information"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        return {}, f"{type(error).__name__} in metadata.yaml"
    if not isinstance(data, dict):
        return {}, "its metadata.yaml holds no bag's information"
    return data, ""


def _promised(metadata: dict[str, Any]) -> dict[str, int]:
    """How many messages of each topic the metadata names."""
    promised: dict[str, int] = {}
    entries = metadata.get("topics_with_message_count")
    for entry in entries if isinstance(entries, list) else []:
        try:
            name, count = str(entry["topic_metadata"]["name"]), int(entry["message_count"])
        except (KeyError, TypeError, ValueError):
            continue
        promised[name] = promised.get(name, 0) + count
    return promised


def _storage_files(path: Path, metadata: dict[str, Any]) -> tuple[list[Path], list[str]]:
    """The files in the order of recording, and the names of those that are missing."""
    if not path.is_dir():
        return ([path] if path.name.endswith(BAG_SUFFIXES) else []), []
    listed = metadata.get("relative_file_paths")
    names = [PurePath(str(name)).name for name in listed] if isinstance(listed, list) else []
    present: list[Path] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        # Not Path.exists, which raises for a name that is too long to be one.
        found = [path / n for n in (name, f"{name}.zstd") if os.path.exists(path / n)]
        if found and name.endswith(BAG_SUFFIXES):
            present.append(found[0])
        else:
            missing.append(name)
    if present:
        return present, missing
    return sorted(_in_folder(path), key=lambda file: (len(file.name), file.name)), []


def _in_folder(path: Path) -> Iterator[Path]:
    """Files of a bag; ``._`` ones are what macOS leaves beside every file."""
    for file in path.iterdir():
        if file.name.endswith(BAG_SUFFIXES) and not file.name.startswith("._"):
            yield file


def _offered_qos(text: Any) -> list[Any]:
    """What publishers offered; nothing where the text is damaged."""
    from rosbags.rosbag2.metadata import parse_qos

    if not isinstance(text, str) or len(text) > _MAX_QOS_BYTES:
        return []
    try:
        return parse_qos(text)
    except Exception:  # what YAML of another program can hold is open
        return []
