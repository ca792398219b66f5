"""An ONNX file as it was read, and its metadata, without the ``onnx`` package.

A node on a robot needs the card inside the artefact, not the 15 MB of ``onnx``. A protobuf message
is a list of (tag, payload) pairs, so the ``metadata_props`` of ModelProto (field 14 in onnx.proto)
are found by skipping every other top-level field by its length: no weights are read.
"""

from __future__ import annotations

import hashlib
import io
import math
import mmap
import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dense_perception.core.errors import ArtefactError
from dense_perception.core.storage import refuse_pointer

_METADATA_PROPS = 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_ENTRY_BYTES = 4 << 20


_LARGE = 128 << 20
_BLOCK = 1 << 20
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was hashed: what is hashed is what runs.

    A path may name other bytes by the time a runtime opens it, so runtimes get :attr:`source`: the
    bytes themselves or, above 128 MB, the open file by its descriptor's name, since runtimes take
    three times a file's size to load it from memory. The descriptor goes on showing a file that was
    replaced; :meth:`verify` tells one that was written to.
    """

    path: Path
    sha256: str
    size: int
    source: bytes | str = field(repr=False, compare=False)
    _descriptor: int = field(default=-1, repr=False, compare=False)
    _changed_ns: int = field(default=0, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read and hash the file.

        :raises ArtefactError: if it cannot be read, is a Git LFS pointer, or keeps weights in other
            files.
        """
        refuse_pointer(path)
        try:
            with open(path, "rb") as stream:
                if os.fstat(stream.fileno()).st_size > _LARGE and _DESCRIPTORS.is_dir():
                    return cls._open(path, stream)
                content = stream.read()
        except OSError as error:
            raise _unreadable(path, error) from error
        _check_tensors(content, path)
        return cls(path, hashlib.sha256(content).hexdigest(), len(content), content)

    @classmethod
    def of(cls, source: Path | OnnxFile) -> OnnxFile:
        """``source`` itself, or what is at that path now.

        :raises ArtefactError: if it cannot be read.
        """
        return source if isinstance(source, OnnxFile) else cls.read(source)

    @classmethod
    def _open(cls, path: Path, stream: BinaryIO) -> OnnxFile:
        # Any write sets the time of the last change to now; unlike mtime, nobody can set it back.
        changed_ns = os.fstat(stream.fileno()).st_ctime_ns
        digest, size = _hash(stream)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_tensors(content, path)
        descriptor = os.dup(stream.fileno())
        name = str(_DESCRIPTORS / str(descriptor))
        file = cls(path, digest, size, name, descriptor, changed_ns)
        weakref.finalize(file, os.close, descriptor)
        return file

    def verify(self) -> None:
        """To be called after a runtime has loaded :attr:`source`.

        :raises ArtefactError: if the file was written to since it was hashed.
        """
        if self._descriptor < 0 or os.fstat(self._descriptor).st_ctime_ns == self._changed_ns:
            return
        # Removing or renaming it counts as a change, too; only its bytes matter.
        with self.open() as stream:
            if _hash(stream)[0] == self.sha256:
                return
        raise ArtefactError(
            f"{self.path} has changed while it was loaded: wait until it is written, and load the "
            "model again"
        )

    def open(self) -> BinaryIO:
        """The bytes from the start, as a stream."""
        return (
            io.BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")
        )


def _hash(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 in hex and length of what is left in the stream."""
    state, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK):
        state.update(block)
        size += len(block)
    return state.hexdigest(), size


def read_onnx_metadata(source: Path | OnnxFile) -> dict[str, str]:
    """The key-value metadata of an ONNX file; of one at a path no weights are read.

    :raises ArtefactError: if the file is missing, empty, truncated or not an ONNX model.
    """
    if isinstance(source, OnnxFile):
        with source.open() as stream:
            return _walk(stream, source.size, source.path)
    refuse_pointer(source)
    try:
        size = os.path.getsize(source)
        with open(source, "rb") as stream:
            return _walk(stream, size, source)
    except OSError as error:
        raise _unreadable(source, error) from error


def _walk(stream: BinaryIO, size: int, path: Path) -> dict[str, str]:
    metadata: dict[str, str] = {}
    fields = 0
    while stream.tell() < size:
        field, wire = _tag(stream, path)
        fields += 1
        if wire == _VARINT:
            _varint(stream, path)
        elif wire in (_FIXED64, _FIXED32):
            stream.seek(8 if wire == _FIXED64 else 4, os.SEEK_CUR)
        elif wire == _LENGTH:
            length = _varint(stream, path)
            if stream.tell() + length > size:
                raise _broken(path, f"field {field} wants {length} bytes past the end of the file")
            if field == _METADATA_PROPS and length <= _MAX_ENTRY_BYTES:
                key, value = _entry(stream.read(length), path)
                metadata[key] = value
            else:
                stream.seek(length, os.SEEK_CUR)
        else:
            raise _broken(path, f"field {field} has the unknown wire type {wire}")
    if not fields:
        raise _broken(path, "the file is empty")
    return metadata


# In onnx.proto: the fields that lead from a model to its tensors, and those of a TensorProto.
_DIMS, _TYPE, _RAW, _EXTERNAL = 1, 2, 9, 13
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_MAX_DEPTH = 64
# Bits of a value by TensorProto.DataType; texts have no raw data.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
}


def _check_tensors(content: bytes | mmap.mmap, path: Path) -> None:
    """Weights in other files are outside the hash, and a path in a model may lead anywhere.

    A tensor whose shape wants more bytes than it has ends the process in ONNX Runtime up to 1.23.
    """
    waiting = [("model", 0, len(content), 0)]
    while waiting:
        kind, position, end, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise _broken(path, f"its graphs are nested more than {_MAX_DEPTH} deep")
        ways, is_tensor = _WAYS.get(kind, {}), kind == "tensor"
        dims: list[int] = []
        data_type, raw = 0, -1
        while position < end:
            tag, position = _varint_at(content, position, path, end)
            field, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, position = _varint_at(content, position, path, end)
                if is_tensor and field == _DIMS:
                    dims.append(value)
                elif is_tensor and field == _TYPE:
                    data_type = value
                continue
            if wire in (_FIXED64, _FIXED32):
                position += 8 if wire == _FIXED64 else 4
                continue
            if wire != _LENGTH:
                raise _broken(path, f"field {field} has the unknown wire type {wire}")
            length, position = _varint_at(content, position, path, end)
            if position + length > end:
                raise _broken(path, f"field {field} wants {length} bytes past the end of the file")
            if field in ways:
                waiting.append((ways[field], position, position + length, depth + 1))
            elif is_tensor and field == _RAW:
                raw = length
            elif is_tensor and field == _DIMS:
                packed = position
                while packed < position + length:
                    value, packed = _varint_at(content, packed, path, position + length)
                    dims.append(value)
            elif is_tensor and field == _EXTERNAL:
                raise ArtefactError(
                    f"{path} keeps weights in other files (ONNX external data), expected one whole "
                    "file: save it with onnx.save(onnx.load(PATH), NEW) and export it again"
                )
            position += length
        wanted = -(-math.prod(dims) * _BITS.get(data_type, 0) // 8)
        if 0 <= raw < wanted:
            raise _broken(path, f"a tensor has {raw} bytes, its shape wants {wanted}")


def _entry(payload: bytes, path: Path) -> tuple[str, str]:
    """A StringStringEntryProto: field 1 is the key, field 2 the value."""
    found = {1: b"", 2: b""}
    position = 0
    while position < len(payload):
        field, wire = payload[position] >> 3, payload[position] & 7
        length, position = _varint_at(payload, position + 1, path)
        if wire != _LENGTH or position + length > len(payload):
            raise _broken(path, "a metadata entry is malformed")
        found[field] = payload[position : position + length]
        position += length
    try:
        return found[1].decode(), found[2].decode()
    except UnicodeDecodeError as error:
        raise _broken(path, "a metadata entry is not UTF-8") from error


def _varint_at(
    payload: bytes | mmap.mmap, position: int, path: Path, end: int | None = None
) -> tuple[int, int]:
    value = shift = 0
    end = len(payload) if end is None else end
    while position < end and shift < 64:
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _broken(path, "a number is cut off")


def _varint(stream: BinaryIO, path: Path) -> int:
    value = shift = 0
    while shift < 64:
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    raise _broken(path, "a number is cut off")


def _tag(stream: BinaryIO, path: Path) -> tuple[int, int]:
    tag = _varint(stream, path)
    if tag >> 3 == 0:
        raise _broken(path, "field number 0 does not exist")
    return tag >> 3, tag & 7


def _unreadable(path: Path, error: OSError) -> ArtefactError:
    return ArtefactError(f"cannot read the model file {path}: {error.strerror or error}")


def _broken(path: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"{path} is not a whole ONNX model ({why}): copy or download the file again"
    )
