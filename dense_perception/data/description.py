"""What a corpus says about itself: ``corpus.json``, and the manifest of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.json_text import json_text
from dense_perception.core.labels import LabelSet
from dense_perception.core.storage import atomic_write_text, file_sha256, read_file
from dense_perception.core.strict import json_value
from dense_perception.data.index import MANIFEST_FILE, write_index
from dense_perception.data.shards import shard_paths

SCHEMA = 2
EARLIER_SCHEMA = 1
DESCRIPTION_FILE = "corpus.json"
_MAX_BYTES = 16 << 20


def write_description(root: Path, description: Mapping[str, Any]) -> None:
    """Finish a corpus: index and manifest of the shards that are there, then ``corpus.json``.

    :param description: ``name`` and anything else, JSON types; ``frames`` is counted. Without
        ``colours``, the classes get those that a label image of them is shown in.
    :raises TrainingError: if a shard is damaged, or two frames have one key.
    """
    root = Path(root)
    paths = shard_paths(root)
    counts = write_index(root, paths)
    manifest = {
        "wids_version": 1,
        "name": str(description.get("name") or root.name),
        "licences": _licences(description),
        "shardlist": [
            {
                "url": path.name,
                "nsamples": count,
                "filesize": path.stat().st_size,
                "sha256": file_sha256(path),
            }
            for path, count in zip(paths, counts, strict=True)
        ],
    }
    atomic_write_text(root / MANIFEST_FILE, json_text(manifest, indent=1) + "\n")
    classes = list(description.get("classes") or [])
    labels: dict[str, Any] = {}
    if classes:
        void = int(description.get("void") or 0)
        names = classes if void else classes[1:]
        colours = LabelSet("", tuple(names)).colors()[: len(names)].tolist()
        labels = {"void": void, "colours": colours if void else [[0, 0, 0], *colours]}
    whole = {"schema": SCHEMA, **labels, **description, "frames": sum(counts)}
    atomic_write_text(root / DESCRIPTION_FILE, json_text(whole, indent=1) + "\n")


def _licences(description: Mapping[str, Any]) -> list[str]:
    """Of the frames and of whatever a generator put into them; each once."""
    own = description.get("licence")
    assets = [each.get("licence") for each in description.get("assets") or ()]
    return sorted({str(each) for each in (own, *assets) if each})


def read_description(root: Path) -> dict[str, Any]:
    """What ``corpus.json`` says.

    :raises TrainingError: if it is missing, damaged, of a schema that is not known, or lacks its
        sizes.
    """
    path = Path(root) / DESCRIPTION_FILE
    try:
        data = json_value(read_file(path, _MAX_BYTES).decode(), str(path), TrainingError)
    except (InputError, UnicodeDecodeError, TrainingError) as error:
        raise TrainingError(
            f"cannot read {path}: {error}; a corpus is a folder that "
            "`dense-perception data synthesize` has finished"
        ) from error
    if not isinstance(data, dict) or data.get("schema") not in (EARLIER_SCHEMA, SCHEMA):
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise TrainingError(
            f"{path}: schema is {got!r}, this version reads {EARLIER_SCHEMA} and {SCHEMA}"
        )
    sized = data["schema"] == EARLIER_SCHEMA or "width" in data or "height" in data
    for key in ("width", "height", "frames") if sized else ("frames",):
        value = data.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TrainingError(f"{path}: {key} is {value!r}, expected a positive whole number")
    void = data.get("void", 0)
    if isinstance(void, bool) or not isinstance(void, int) or not 0 <= void <= 65535:
        raise TrainingError(f"{path}: void is {void!r}, expected a label from 0 to 65535")
    return data
