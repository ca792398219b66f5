"""``dense-perception fetch``: the published weights of a model into the cache directory."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.output import complain, print_json, say

if TYPE_CHECKING:
    from dense_perception.core.card import ModelCard
    from dense_perception.nets.backbones import PublishedBackbone

HELP = "Download the published weights of a model or backbone, checked against their hash."
EXAMPLES = """\
examples:
  dense-perception fetch depth_anything_v2_small
  dense-perception fetch dinov2_small
  dense-perception fetch dpt_hybrid_nyu --mirror /media/usb/weights
  DENSE_PERCEPTION_MIRROR=https://example.org/weights dense-perception fetch dpt_large_midas

An interrupted download goes on where it stopped. Then:
  dense-perception export depth_anything_v2_small
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        help="a model of `dense-perception models`, or a backbone to train from: "
        "deit_tiny, deit_small, deit_base, dinov2_small, dinov2_base, dinov2_large, "
        "swin_tiny_imagenet, swin_small_imagenet, swin_base_imagenet22k, swin_large_imagenet22k, "
        "beit_base, beit_large",
    )
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
    if options.name in _backbones():
        return _backbone(options)
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
        shared=is_shared(card),
        retries=options.retries,
        progress=not options.json,
    )
    _report(
        options,
        {
            "name": card.name,
            "path": str(path),
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
            "published_sha256": card.source.sha256,
            "weights_licence": card.licence.get("weights", ""),
            "commercial": card.licence.get("commercial"),
        },
        f"dense-perception export {card.name}",
    )
    return 0


def fetch_backbone(
    name: str,
    folder: Path | None = None,
    mirror: str | None = None,
    *,
    retries: int = 3,
    progress: bool = True,
) -> Path:
    """The weights of a published backbone, from the cache where they are there.

    :raises ArtefactError: as :func:`~dense_perception.hub.download.download`.
    """
    from dense_perception.hub.download import MIRROR_VARIABLE, download
    from dense_perception.nets.backbones import backbone_path

    target = backbone_path(name)
    return download(
        _backbones()[name].source,
        folder or target.parent,
        mirror=os.environ.get(MIRROR_VARIABLE, "") if mirror is None else mirror,
        model=name,
        retries=retries,
        progress=progress,
    )


def _backbones() -> Mapping[str, PublishedBackbone]:
    from dense_perception.nets.backbones import BACKBONES

    return BACKBONES


def _backbone(options: argparse.Namespace) -> int:
    from dense_perception.core.storage import file_sha256

    name, published = options.name, _backbones()[options.name]
    path = fetch_backbone(
        name,
        options.output,
        options.mirror,
        retries=options.retries,
        progress=not options.json,
    )
    _report(
        options,
        {
            "name": name,
            "path": str(path),
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
            "published_sha256": published.source.sha256,
            "weights_licence": published.licence,
            "commercial": True,
        },
        f"dense-perception train CONFIG --init {name} ...",
    )
    return 0


def _report(options: argparse.Namespace, found: Mapping[str, object], following: str) -> None:
    if options.json:
        print_json(found)
        return
    checked = (
        "as published"
        if found["published_sha256"]
        else "not checked: its publisher states none; compared with this one from now on"
    )
    size_mb = Path(str(found["path"])).stat().st_size / 1e6
    say(f"{found['path']}\n  {size_mb:.1f} MB, SHA-256 {found['sha256']} ({checked})")
    say(f"  next: {following}")


def is_shared(card: ModelCard) -> bool:
    """Whether several known models have a checkpoint of that name, and no hash tells them apart."""
    from dense_perception.core.errors import CardError
    from dense_perception.core.registry import find_card, list_models

    if card.source is None or card.source.sha256:
        return False
    count, file = 0, card.source.file
    for name in list_models():
        try:
            source = find_card(name).source
        except CardError:
            continue  # another model's card is none of this one's business
        count += source is not None and source.file == file
    return count > 1
