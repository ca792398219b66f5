"""``dense-perception fetch``: the published weights of a model into the cache directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dense_perception.commands.output import complain, print_json, say

HELP = "Download the published weights of a model, checked against their published hash."
EXAMPLES = """\
examples:
  dense-perception fetch depth_anything_v2_small
  dense-perception fetch dpt_hybrid_nyu --mirror /media/usb/weights
  DENSE_PERCEPTION_MIRROR=https://example.org/weights dense-perception fetch dpt_large_midas

An interrupted download goes on where it stopped. Then:
  dense-perception export depth_anything_v2_small
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a model of `dense-perception models`")
    parser.add_argument(
        "--output", type=Path, default=None, metavar="DIR", help="folder instead of the cache"
    )
    parser.add_argument(
        "--mirror",
        default=None,
        metavar="DIR|URL",
        help="take the file from this folder or address (default: $DENSE_PERCEPTION_MIRROR)",
    )
    parser.add_argument(
        "--retries", type=int, default=3, metavar="N", help="further attempts (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def main(options: argparse.Namespace) -> int:
    from dense_perception.core.errors import InputError, ModelNotFoundError
    from dense_perception.core.registry import checkpoint_path, find_card
    from dense_perception.core.storage import file_sha256
    from dense_perception.hub.download import MIRROR_VARIABLE, download
    from dense_perception.hub.licence import licence_notice

    if options.retries < 0:
        raise InputError(f"--retries is {options.retries}, expected 0 or more")
    card = find_card(options.name)
    target = checkpoint_path(card)
    if card.source is None or target is None:
        if card.files:
            say(f"{card.name} needs no download: its files are part of the package")
            return 0
        how = card.provenance.get("weights", "not published anywhere")
        raise ModelNotFoundError(
            f"the weights of {card.name} cannot be fetched: {how}; where you have them, name the "
            "file to `dense-perception export`"
        )
    notice = licence_notice(card)
    if notice:
        complain(notice)
    folder = options.output or target.parent
    mirror = options.mirror if options.mirror is not None else os.environ.get(MIRROR_VARIABLE, "")
    path = download(
        card.source,
        folder,
        mirror=mirror,
        model=card.name,
        shared=not card.source.sha256 and _is_shared(card.source.file),
        retries=options.retries,
        progress=not options.json,
    )
    digest = file_sha256(path)
    if options.json:
        print_json(
            {
                "name": card.name,
                "path": str(path),
                "bytes": path.stat().st_size,
                "sha256": digest,
                "published_sha256": card.source.sha256,
                "weights_licence": card.licence.get("weights", ""),
                "commercial": card.licence.get("commercial"),
            }
        )
        return 0
    checked = (
        "as published"
        if card.source.sha256
        else "not checked: its publisher states none; compared with this one from now on"
    )
    say(f"{path}\n  {path.stat().st_size / 1e6:.1f} MB, SHA-256 {digest} ({checked})")
    say(f"  next: dense-perception export {card.name}")
    return 0


def _is_shared(file: str) -> bool:
    """Whether several known models have a checkpoint of that name."""
    from dense_perception.core.errors import CardError
    from dense_perception.core.registry import find_card, list_models

    count = 0
    for name in list_models():
        try:
            source = find_card(name).source
        except CardError:
            continue  # another model's card is none of this one's business
        count += source is not None and source.file == file
    return count > 1
