"""``dense-perception models``: what is there, where, and whether its files are whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dense_perception.commands.output import print_json, say
from dense_perception.core.printable import printable

HELP = "List the models: those ready on this machine, checked, and those that can be fetched."
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
        print_json({"folders": search_path(), "models": rows})
    elif not rows:
        folders = ", ".join(map(str, search_path())) or "no folder"
        say(f"no models found in {folders}; set DENSE_PERCEPTION_MODELS to a folder of models")
    else:
        _print_here([row for row in rows if row["files"] or row["problem"]])
        _print_published([row for row in rows if not (row["files"] or row["problem"])])
    broken = any(row["problem"] or any(not f["whole"] for f in row["files"]) for row in rows)
    return 1 if broken else 0


def _print_here(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        say(f"{row['name']}: {row['summary']}", keep="")
        for file in row["files"]:
            say(f"  {file['precision']:<5} {file['megabytes']:7.1f} MB  {file['state']}")
        for text in (row["details"], row["card"]):
            say(f"  {printable(text, keep='')}")


def _print_published(rows: list[dict[str, Any]]) -> None:
    """One line each: there may be dozens."""
    if not rows:
        return
    say("\nnot part of the package; `dense-perception get NAME` makes one ready:")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        million, gflops = (row["parameters"] or 0) / 1e6, row["gflops"] or 0
        size = "{}x{}".format(*row["size"])
        state = row["on_disk"] if row["obtainable"] else "by hand"
        line = (
            f"  {row['name']:<{width}}  {row['task']:<12}  {size:>9}  {million:6.1f} M "
            f"{gflops:7.0f} GFLOP  {state:<9}  {row['weights_licence']}"
        )
        say(line, keep="")


def _row(name: str, path: Path) -> dict[str, Any]:
    from dense_perception.core.card import ModelCard
    from dense_perception.core.errors import DensePerceptionError
    from dense_perception.core.registry import checkpoint_path, find_model

    row: dict[str, Any] = {"name": name, "card": str(path), "files": [], "problem": ""}
    try:
        card = ModelCard.from_yaml(path)
        elsewhere = card.source is not None or "weights" in card.provenance
        model = None if elsewhere and not card.files else find_model(path)
    except DensePerceptionError as error:
        return {**row, "summary": "not usable", "details": str(error), "problem": str(error)}
    licence = card.licence.get("weights") or card.licence.get("spdx") or "not stated"
    checkpoint = checkpoint_path(card)
    fetched = checkpoint is not None and checkpoint.is_file()
    row |= {
        "family": card.family,
        "variant": card.variant,
        "task": card.task,
        "size": [card.input.width, card.input.height],
        "parameters": card.cost.get("parameters"),
        "gflops": card.cost.get("gflops"),
        "licence": card.licence.get("code") or card.licence.get("spdx") or "not stated",
        "weights_licence": licence,
        "commercial": card.licence.get("commercial"),
        "source": card.source.url if card.source else None,
        "on_disk": "ready" if model else "fetched" if fetched else "no",
        "obtainable": bool(card.files or card.source),
        "summary": card.summary,
        "details": f"{card.input.width}x{card.input.height}, {card.task}, licence {licence}",
    }
    for precision, entry in card.files.items():
        assert model is not None
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
