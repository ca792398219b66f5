"""``dense-perception models``: what is there, where, and whether its files are whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

HELP = "List the models found on this machine, with their files checked."
EXAMPLES = """\
examples:
  dense-perception models
  dense-perception models --json
  DENSE_PERCEPTION_MODELS=~/my_models dense-perception models
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def main(options: argparse.Namespace) -> int:
    from dense_perception.core.registry import list_models, search_path

    rows = [_row(name, path) for name, path in sorted(list_models().items())]
    if options.json:
        print(json.dumps({"folders": [str(path) for path in search_path()], "models": rows}))
    elif not rows:
        folders = ", ".join(map(str, search_path())) or "no folder"
        print(f"no models found in {folders}; set DENSE_PERCEPTION_MODELS to a folder of models")
    else:
        for row in rows:
            print(f"{row['name']}: {row['summary']}")
            for file in row["files"]:
                print(f"  {file['precision']:<5} {file['megabytes']:7.1f} MB  {file['state']}")
            print(f"  {row['details']}\n  {row['card']}")
    broken = any(row["problem"] or any(not f["whole"] for f in row["files"]) for row in rows)
    return 1 if broken else 0


def _row(name: str, path: Path) -> dict[str, Any]:
    from dense_perception.core.errors import DensePerceptionError
    from dense_perception.core.registry import find_model

    row: dict[str, Any] = {"name": name, "card": str(path), "files": [], "problem": ""}
    try:
        model = find_model(path)
    except DensePerceptionError as error:
        return {**row, "summary": "not usable", "details": str(error), "problem": str(error)}
    card = model.card
    licence = card.licence.get("weights") or card.licence.get("spdx") or "not stated"
    row["summary"] = card.summary
    row["details"] = f"{card.input.width}x{card.input.height}, {card.task}, licence {licence}"
    for precision, entry in card.files.items():
        try:
            model.artefact(precision)
            state, whole = "ok", True
        except DensePerceptionError as error:
            state, whole = str(error), False
        row["files"].append(
            {
                "precision": precision,
                "file": entry.file,
                "megabytes": round(entry.bytes / 1e6, 2),
                "state": state,
                "whole": whole,
            }
        )
    return row
