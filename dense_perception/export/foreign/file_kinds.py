"""What a file is that is no ONNX model: told by its first bytes, with what to do instead."""

from __future__ import annotations

import zipfile
from pathlib import Path

_READ = 1024
_ZIP = b"PK\x03\x04"
_SHOWN = 3
_DATA = (".onnx.data", ".onnx_data")
_LONGEST_HEADER = 100 << 20

_EXPORT = (
    "export the network with torch.onnx.export first, or take `dense-perception export NAME "
    "--weights FILE` for a published network"
)
_UNPACK = "unpack it and give the ONNX file in it"
_TENSORFLOW = "convert it with tf2onnx, or take the ONNX file of the same model"
_MADE_OF = "take the ONNX file that it was made of"
_AGAIN = "download it again"

_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "a compressed file (gzip)", _UNPACK),
    (0, b"BZh", "a compressed file (bzip2)", _UNPACK),
    (0, b"\xfd7zXZ\0", "a compressed file (xz)", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a compressed file (Zstandard)", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z)", _UNPACK),
    (257, b"ustar", "an archive (tar)", _UNPACK),
    (4, b"TFL3", "a TensorFlow Lite model", _TENSORFLOW),
    (0, b"\x89HDF\r\n\x1a\n", "a Keras model (HDF5)", _TENSORFLOW),
    (4, b"ORTM", "in ONNX Runtime's own format", _MADE_OF),
    (4, b"ET12", "an ExecuTorch program", _EXPORT),
    (0, b"ftrt", "a TensorRT engine, which fits one GPU alone", _MADE_OF),
    (0, b"\x80\x02", "a PyTorch checkpoint", _EXPORT),
    (0, b"7767517\n", "an ncnn network", _MADE_OF),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", "give the network's file"),
    (0, b"\x89PNG", "a picture (PNG)", "give the network's file"),
)
"""Where the bytes stand, the bytes, what the file is, and the cure."""


def other_kind(path: Path) -> tuple[str, str] | None:
    """What a file is and what to do with it; None if nothing tells that it is no ONNX model.

    :raises OSError: if it cannot be read.
    """
    with open(path, "rb") as stream:
        start = stream.read(_READ)
    if not start:
        return "empty", _AGAIN
    if path.name.endswith(_DATA):
        return "a file of weights beside a model", "give the model's own file"
    if path.name == "saved_model.pb":
        return "a TensorFlow model", _TENSORFLOW
    if start.startswith(_ZIP):
        return _zipped(path)
    for offset, magic, what, cure in _KINDS:
        if start[offset : offset + len(magic)] == magic:
            return what, cure
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 0 < header < _LONGEST_HEADER:
        return "weights without a network (safetensors)", _EXPORT
    return _text(start.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _zipped(path: Path) -> tuple[str, str]:
    """PyTorch's checkpoints and Keras' models are ZIP archives, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a PyTorch checkpoint or an archive", _EXPORT
    inside = [name for name in names if name.lower().endswith(".onnx")]
    if inside:
        shown = ", ".join(inside[:_SHOWN]) + (", ..." if len(inside) > _SHOWN else "")
        return f"an archive that holds {shown}", _UNPACK
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch checkpoint", _EXPORT
    if any(name.endswith(".weights.h5") for name in names):
        return "a Keras model", _TENSORFLOW
    return "an archive without an ONNX file in it", "give an ONNX file"


def _text(start: bytes) -> tuple[str, str] | None:
    """Of texts without the blanks before them, in small letters."""
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the file itself, and sign in where its page asks for it"
    if start.startswith(b"<?xml") and b"<net" in start:
        return "an OpenVINO model", _MADE_OF
    if start.startswith((b"{", b"[")) and _is_text(start):
        return "a JSON text", "give the folder that it is in, or download the ONNX file again"
    return None


def _is_text(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" or byte > 127 for byte in start)
