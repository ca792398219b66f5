"""Whether H.264 pictures are missing: decoders hide that, and go on with a wrong picture."""

from __future__ import annotations

import re

_NAL = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
_SLICE, _IDR, _SEQUENCE = 1, 5, 7
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_HEADER_BYTES = 512


def units(packet: bytes) -> list[tuple[int, int, bytes]]:
    """Importance (0: nothing refers to it), type and first bytes of each unit of a packet."""
    return [
        (match[1][0] >> 5 & 3, match[1][0] & 31, packet[match.end() : match.end() + _HEADER_BYTES])
        for match in _NAL.finditer(packet)
    ]


class FrameNumbers:
    """Follows ``frame_num`` of the slices, which counts the pictures that others refer to."""

    def __init__(self) -> None:
        self._bits = 0
        self._separate_planes = False
        self._last: int | None = None

    def restart(self) -> None:
        """Take the next picture as it comes."""
        self._last = None

    def miss(self, packet: bytes) -> bool:
        """Whether a picture between the last packet and this one is missing."""
        for importance, kind, content in units(packet):
            bits = _Bits(content)
            try:
                if kind == _SEQUENCE:
                    self._sequence(bits)
                elif kind in (_SLICE, _IDR) and self._bits:
                    bits.exp(), bits.exp(), bits.exp()
                    if self._separate_planes:
                        bits.take(2)
                    number = bits.take(self._bits)
                    before = self._last
                    if importance:
                        self._last = number
                    expected = (before, None if before is None else (before + 1) % 2**self._bits)
                    if kind == _SLICE and before is not None and number not in expected:
                        return True
            except IndexError:  # the decoder says what is wrong with it
                return False
        return False

    def _sequence(self, bits: _Bits) -> None:
        profile = bits.take(24) >> 16
        bits.exp()
        self._separate_planes = False
        if profile in _HIGH_PROFILES:
            chroma = bits.exp()
            self._separate_planes = chroma == 3 and bool(bits.take(1))
            bits.exp(), bits.exp(), bits.take(1)
            if bits.take(1):
                for index in range(12 if chroma == 3 else 8):
                    if bits.take(1):
                        _skip_scaling(bits, 16 if index < 6 else 64)
        self._bits = bits.exp() + 4
        order = bits.exp()
        if order == 0:
            bits.exp()
        elif order == 1:
            bits.take(1), bits.exp(), bits.exp()
            for _ in range(min(bits.exp(), 255)):
                bits.exp()
        bits.exp()
        if bits.take(1):  # gaps are allowed: they say nothing
            self._bits = 0


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.exp()
            step = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + step) % 256
        last = following or last


class _Bits:
    """Reads bits; the bytes that keep start codes out of the content are removed.

    :raises IndexError: from its methods, at the end.
    """

    def __init__(self, content: bytes) -> None:
        plain = content.replace(b"\x00\x00\x03", b"\x00\x00")
        self._value = int.from_bytes(plain, "big")
        self._left = 8 * len(plain)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & (1 << count) - 1

    def exp(self) -> int:
        """An Exp-Golomb number."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
