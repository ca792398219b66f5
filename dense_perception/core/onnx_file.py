"""An ONNX file as it was read, and its metadata, without the ``onnx`` package.

A node on a robot needs the card inside the artefact, not the 15 MB of ``onnx``. A protobuf message
is a list of (tag, payload) pairs, so the ``metadata_props`` of ModelProto (field 14 in onnx.proto)
are found by skipping every other top-level field by its length: no weights are read.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dense_perception.core.errors import ArtefactError

_METADATA_PROPS = 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_ENTRY_BYTES = 4 << 20


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that was read once: what is hashed is what runs.

    A path may name other bytes by the time a runtime opens it, so runtimes get ``content``. They
    make their own copy of the weights; who holds this object holds another, up to 2 GB.
    """

    path: Path
    content: bytes = field(repr=False)
    sha256: str

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read and hash the file.

        :raises ArtefactError: if it cannot be read.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls(path, content, hashlib.sha256(content).hexdigest())

    @classmethod
    def of(cls, source: Path | OnnxFile) -> OnnxFile:
        """``source`` itself, or what is at that path now.

        :raises ArtefactError: if it cannot be read.
        """
        return source if isinstance(source, OnnxFile) else cls.read(source)


def read_onnx_metadata(source: Path | OnnxFile) -> dict[str, str]:
    """The key-value metadata of an ONNX file; of one at a path no weights are read.

    :raises ArtefactError: if the file is missing, empty, truncated or not an ONNX model.
    """
    if isinstance(source, OnnxFile):
        return _walk(io.BytesIO(source.content), len(source.content), source.path)
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


def _varint_at(payload: bytes, position: int, path: Path) -> tuple[int, int]:
    value = shift = 0
    while position < len(payload) and shift < 64:
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
