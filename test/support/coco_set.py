"""A miniature of COCO's things in which everything is wrong that can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
PROBLEMS = (
    "annotation 7 has the category 99, which the file does not name: left out",
    "annotation 8 is of the image 77, not in the file",
    "annotation 9 has the box [1, 1, 0, 5], expected x, y, width and height: left out",
    "annotation 3 is there twice: both count",
    "1 annotation reaches outside of the picture (2)",
    "1 thing without a mask",
)


def _box(x1: int, y1: int, x2: int, y2: int) -> list[list[int]]:
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def _thing(number: int, category: int, corners: tuple[int, int, int, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    return {
        "id": number,
        "image_id": 1,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": _box(*corners),
    }


def coco_things(root: Path) -> Path:
    """Two pictures, the second one without a thing; things of the classes mug (1) and table (2).

    In the first one, from the left: a mug on a table, a table that reaches out of the picture, a
    mug of the same id as another, a crowd of mugs, and a mug of which the box alone is known.
    """
    counts = [40 * HEIGHT, 4 * HEIGHT, (WIDTH - 44) * HEIGHT]
    annotations = [
        _thing(1, 2, (0, 20, 16, 40)),
        _thing(3, 1, (4, 24, 10, 30)),
        _thing(2, 2, (18, -20, 28, 10)),
        _thing(3, 1, (30, 10, 38, 20)),
        {
            **_thing(5, 1, (40, 0, 44, HEIGHT)),
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
        },
        {**_thing(6, 1, (50, 10, 60, 20)), "segmentation": []},
        _thing(7, 99, (0, 0, 5, 5)),
        {**_thing(8, 1, (0, 0, 5, 5)), "image_id": 77},
        {**_thing(9, 1, (0, 0, 5, 5)), "bbox": [1, 1, 0, 5]},
    ]
    data = {
        "images": [
            {"id": k, "file_name": f"{k:012d}.png", "width": WIDTH, "height": HEIGHT}
            for k in (1, 2)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "mug"}, {"id": 2, "name": "table"}],
    }
    for entry in annotations:
        if entry["category_id"] == 1:
            entry["category_id"] = 3
    for image in data["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 255, (HEIGHT, WIDTH, 3))
        path = root / "val2017" / str(image["file_name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise.astype(np.uint8))
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(data))
    return root
