"""The shown frames: pictures from the report's folder, packed into the page within a budget."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dense_perception.evaluation.document import ShownFrame
from dense_perception.evaluation.page.elements import Picture, PictureRow
from dense_perception.evaluation.page.reading import Reading
from dense_perception.evaluation.page.wording import number, title_of
from dense_perception.evaluation.panels import ANGLE_LIMIT_DEG, DEPTH_LIMIT
from dense_perception.imaging.encode import encode_jpeg

BUDGET = 3_500_000  # bytes of the page that pictures may take
_KINDS = ("image", "truth", "prediction", "error")
_RANKS = {"worst": 0, "median": 1, "best": 2}
# Tried in this order until everything fits: the longest side in pixels, the quality of JPEG.
_STEPS = ((400, 85), (320, 75), (240, 65), (200, 50))
_MOST_BYTES = 4_000_000  # of one file


@dataclass(frozen=True)
class ContestantFrames:
    """The shown frames of a contestant; ``is_first``: unfolded, as its main figure is best."""

    name: str
    slot: int | None
    rows: Sequence[PictureRow]
    is_first: bool


@dataclass(frozen=True)
class Gallery:
    """All shown frames, how their colours read, and what was left out of them."""

    key: str
    short: str
    title: str
    contestants: Sequence[ContestantFrames]
    legends: Sequence[str]
    missing: Sequence[str]


def gallery(reading: Reading, folder: Path) -> Gallery | None:
    """The frames of ``report["frames_shown"]`` with their files below ``folder``.

    A file that is missing or no picture is named in ``missing``. ``None`` without shown frames.
    """
    shown = reading.report["frames_shown"]
    if not shown:
        return None
    missing: list[str] = []
    decoded: dict[str, np.ndarray] = {}
    for path in dict.fromkeys(path for each in shown for path in each["panels"].values()):
        picture = _read(folder, path)
        if picture is None:
            missing.append(f"{path} cannot be read")
        else:
            decoded[path] = picture
    packed = _packed(shown, decoded, missing)
    order = [each["name"] for each in reading.contestants]
    best = reading.best(reading.primary)
    leader = best[0] if best is not None else shown[0]["contestant"]
    found: list[ContestantFrames] = []
    for name in sorted(
        {each["contestant"] for each in shown},
        key=lambda name: order.index(name) if name in order else len(order),
    ):
        own = sorted(
            (each for each in shown if each["contestant"] == name),
            key=lambda each: (each["task"], each["figure"], _RANKS[each["rank"]]),
        )
        rows = [row for each in own if (row := _row(each, packed)).pictures]
        if rows:
            found.append(ContestantFrames(name, reading.slot(name), rows, name == leader))
    return Gallery(
        "frames",
        "Frames",
        "What does it look like?",
        found,
        _legends({each["task"] for each in shown}),
        missing,
    )


def _read(folder: Path, relative: str) -> np.ndarray | None:
    """A picture as BGR; ``None`` for one that is missing, outside of ``folder`` or no picture."""
    try:
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return None
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = path.read_bytes()
    except (OSError, ValueError):
        return None
    if not data.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def _packed(
    shown: Sequence[ShownFrame], decoded: dict[str, np.ndarray], missing: list[str]
) -> dict[str, tuple[str, int, int]]:
    """Data URIs with their sizes by path: smaller pictures, then fewer, until they fit."""
    packed: dict[str, tuple[str, int, int]] = {}
    used = [path for each in shown for path in each["panels"].values() if path in decoded]
    for side, quality in _STEPS:
        packed = {path: _encoded(picture, side, quality) for path, picture in decoded.items()}
        if sum(len(packed[path][0]) for path in used) <= BUDGET:
            return packed
    total, kept, left_out = 0, set[str](), 0
    for each in shown:
        size = sum(len(packed[path][0]) for path in each["panels"].values() if path in packed)
        if total + size > BUDGET:
            left_out += 1
            continue
        total += size
        kept.update(each["panels"].values())
    missing.append(f"{left_out} of {len(shown)} frames are left out: the page would be too large")
    return {path: found for path, found in packed.items() if path in kept}


def _encoded(picture: np.ndarray, side: int, quality: int) -> tuple[str, int, int]:
    height, width = picture.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    data = encode_jpeg(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), quality)
    return "data:image/jpeg;base64," + base64.b64encode(data).decode(), *size


def _row(shown: ShownFrame, packed: dict[str, tuple[str, int, int]]) -> PictureRow:
    what, where = shown["task"], f"frame {shown['key']} of {shown['recording']}"
    span = ""
    if shown["near_m"] is not None and shown["far_m"] is not None:
        span = f", from {shown['near_m']:.2f} m (red) to {shown['far_m']:.2f} m (blue)"
    texts = {
        "image": ("Image", f"Camera image, {where}"),
        "truth": ("Truth", f"True {what}{span}, {where}"),
        "prediction": (
            "Prediction",
            f"{what.capitalize()} answered by {shown['contestant']}{span}",
        ),
        "error": ("Error", f"Error of {shown['contestant']}, {where}"),
    }
    pictures = [
        Picture(texts[kind][0], source, texts[kind][1], width, height)
        for kind in _KINDS
        if (path := shown["panels"].get(kind)) is not None and path in packed
        for source, width, height in (packed[path],)
    ]
    value = f"{title_of(shown['figure'])} {number(shown['value'], shown['figure'])}"
    return PictureRow(
        f"{shown['rank'].capitalize()} frame: {value}",
        f"{where[0].upper()}{where[1:]}{span.replace(', from', '; depth from')}.",
        pictures,
    )


def _legends(tasks: set[str]) -> list[str]:
    """How the colours of errors read, for the tasks that are shown."""
    lines = []
    if "depth" in tasks:
        lines.append(
            "Depth: near is red, far is blue, black is none. Error of depth: blue is nearer than "
            f"the truth, white is right, red is farther; full colour at {100 * DEPTH_LIMIT:g} % "
            "of the true depth."
        )
    if "labels" in tasks:
        lines.append("Error of labels: orange is wrong, gray is right, black has no true label.")
    if "things" in tasks:
        lines.append(
            "Things: a tint and a box each; of the answer the surest, as many as there truly are. "
            "Error of things: blue is found, orange is missed, violet is false, at an overlap of "
            ".50."
        )
    if "normals" in tasks:
        lines.append(
            f"Error of normals: white is right, full violet is {ANGLE_LIMIT_DEG:g} degrees or more."
        )
    return lines
