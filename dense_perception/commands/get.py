"""``dense-perception get``: a published model, fetched and made ready in one step."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dense_perception.commands.output import complain, print_json, say

if TYPE_CHECKING:
    from dense_perception.core.card import ModelCard

HELP = "Fetch a published model and make it ready, in one step; says first what that takes."
EXAMPLES = """\
examples:
  dense-perception get depth_anything_v2_small
  dense-perception get depth_anything_v2_small --dry-run
  dense-perception get segmenter_small_mask_ade20k --precision fp16 int8 --calibrate drive.mp4
  dense-perception get dpt_large_midas --mirror /media/usb/weights

Where a card names a published ONNX file, that is imported, which needs no PyTorch. Otherwise the
checkpoint is fetched and exported with PyTorch. It is the same as `fetch` and `export`, or `fetch`
and `import`. Then: ros2 launch dense_perception perception.launch.py model:=NAME
"""
_WAYS = ("auto", "onnx", "checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a published model of `dense-perception models`")
    parser.add_argument(
        "--from",
        dest="way",
        choices=_WAYS,
        default="auto",
        help="the published ONNX file, or the checkpoint (default auto: the first there is)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=[],
        choices=("fp32", "fp16", "int8", "fp8"),
        metavar="P",
        help="as in export",
    )
    parser.add_argument(
        "--calibrate", metavar="FOLDER|VIDEO|BAG", help="frames for int8 and fp8, as in export"
    )
    parser.add_argument("--mirror", metavar="DIR|URL", help="take the file from there")
    parser.add_argument("--overwrite", action="store_true", help="make it again")
    parser.add_argument("--dry-run", action="store_true", help="say what it takes, do nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def main(options: argparse.Namespace) -> int:
    from dense_perception.commands import export, import_model
    from dense_perception.commands.fetch import is_shared
    from dense_perception.core.errors import ModelNotFoundError
    from dense_perception.core.registry import checkpoint_path, find_card, find_model
    from dense_perception.hub.download import MIRROR_VARIABLE, download
    from dense_perception.hub.licence import licence_notice

    card = find_card(options.name)
    if not options.overwrite:
        try:
            ready = find_model(options.name)
        except ModelNotFoundError:
            pass
        else:
            _refuse_ready(options, ready.precisions)
            _show(options, {"name": card.name, "ready": True, "card": str(ready.source)})
            return 0
    way = _way(card, options.way)
    mirror = options.mirror if options.mirror is not None else os.environ.get(MIRROR_VARIABLE, "")
    plan = _plan(card, way, mirror)
    if options.dry_run or not options.json:
        _show(options, plan)
    if notice := licence_notice(card):
        complain(notice)
    if options.dry_run:
        return 0
    _check_machine(card, way)
    target = checkpoint_path(card)
    assert card.source is not None
    assert target is not None
    onnx = card.source.onnx if way == "onnx" else None
    source = onnx or card.source
    path = download(
        source,
        target.parent,
        mirror=mirror,
        model=card.name,
        shared=onnx is None and is_shared(card),
        progress=not options.json,
    )
    words = ["--json"] if options.json else []
    words += ["--overwrite"] if options.overwrite else []
    words += ["--precision", *options.precision] if options.precision else []
    words += ["--calibrate", options.calibrate] if options.calibrate else []
    if onnx is None:
        code = export.main(_parsed(export.add_arguments, [card.name, *words]))
    else:
        parsed = _parsed(import_model.add_arguments, [str(path), *words])
        parsed.like, parsed.name = onnx.like or None, card.name
        parsed.licence = card.licence.get("weights")
        code = import_model.main(parsed)
    if code == 0 and not options.json:
        say(f"ready; for instance: dense-perception run {card.name} --input PHOTO --output answers")
    return code


def _refuse_ready(options: argparse.Namespace, there: Sequence[str]) -> None:
    """
    :raises InputError: if more is asked for than what is there.
    """
    from dense_perception.core.errors import InputError

    more = [kind for kind in options.precision if kind not in there]
    if more or options.calibrate is not None or options.way != "auto":
        raise InputError(
            f"{options.name} is there in {', '.join(there)}; for what else was asked for it has to "
            "be made again: give --overwrite, or leave the options out"
        )


def _way(card: ModelCard, wished: str) -> str:
    """
    :raises ModelNotFoundError: if the card names nothing of that kind.
    """
    from dense_perception.core.errors import ModelNotFoundError

    if card.source is None:
        how = card.provenance.get("weights", "not published anywhere")
        raise ModelNotFoundError(f"the weights of {card.name} cannot be fetched: {how}")
    has_onnx = card.source.onnx is not None
    if wished == "onnx" and not has_onnx:
        raise ModelNotFoundError(
            f"the card of {card.name} names no published ONNX file: leave --from out, or import a "
            f"file of yours with `dense-perception import FILE --name {card.name}`"
        )
    return "onnx" if has_onnx and wished != "checkpoint" else "checkpoint"


def _plan(card: ModelCard, way: str, mirror: str) -> dict[str, object]:
    """What it will take, as a table for people and programs."""
    from dense_perception.core.registry import checkpoint_path, exported_dir

    assert card.source is not None
    target = checkpoint_path(card)
    source = (card.source.onnx if way == "onnx" else None) or card.source
    kept = target.parent / source.file if target is not None else None
    about_mb = round(card.cost.get("parameters", 0) * 4e-6)
    plan: dict[str, object] = {
        "name": card.name,
        "licence": card.licence.get("weights", "not stated"),
        "download": (f"{source.file} from {mirror}" if mirror else source.url)
        + f", about {about_mb} MB",
    }
    if kept is not None and kept.is_file():
        plan["download"] = f"none, {kept} is there"
    if way == "onnx":
        plan["then"] = "imported: no PyTorch, less than a minute for most models"
    else:
        plan["then"] = "exported with PyTorch"
        if "export_cpu_s" in card.cost:
            plan["then"] = (
                f"exported with PyTorch: about {card.cost['export_cpu_s']} s of processor time and "
                f"{card.cost['export_peak_gb']} GB of memory"
            )
    plan["to"] = str(exported_dir())
    return plan


def _check_machine(card: ModelCard, way: str) -> None:
    """Refuse what cannot end well before anything is transferred.

    :raises BackendError: if PyTorch is missing, or onnx where a file is imported.
    """
    from dense_perception.core.errors import BackendError
    from dense_perception.core.machine import available_gb

    if way == "checkpoint" and find_spec("torch") is None:
        raise BackendError(
            f"a checkpoint of {card.name} becomes an ONNX file with PyTorch, which is not "
            "installed: pip install 'dense_perception[export]', or copy the model folder from a "
            "machine that has it"
        )
    if way == "onnx" and find_spec("onnx") is None:
        raise BackendError(
            "a published ONNX file is imported with the package onnx, which is not installed: "
            "pip install 'dense_perception[import]'"
        )
    needed_gb = card.cost.get("export_peak_gb", 0) if way == "checkpoint" else 0
    free_gb = available_gb()
    if free_gb is not None and needed_gb > free_gb:
        complain(
            f"WARNING: the export takes about {needed_gb} GB of memory, {free_gb:.1f} GB are "
            "available: end other programs, or export on another machine and copy the folder"
        )


def _show(options: argparse.Namespace, found: dict[str, object]) -> None:
    if options.json:
        print_json(found)
    elif found.get("ready"):
        say(f"{found['name']} is ready: {found['card']} (--overwrite makes it again)")
    else:
        say("\n".join(f"{key:<10} {value}" for key, value in found.items()))


def _parsed(
    add: Callable[[argparse.ArgumentParser], None], words: Sequence[str]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args(list(words))
