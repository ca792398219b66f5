"""The forms of ``evaluate``, and which options each of them has no use for: those are refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dense_perception.core.errors import InputError


class Form(str, Enum):
    """What is printed or written: one model's table, or a report."""

    BAG = "bag"
    PICTURES = "pictures"
    DATA = "data"
    REPORT = "report"


@dataclass(frozen=True)
class Asked:
    """What the options are about: how many contestants and sources there are of each kind.

    ``plain`` are the artefacts whose precision is not named with @.
    """

    form: Form
    artefacts: int
    plain: int
    networks: int
    bags: int
    pictures: int
    frames: int
    cluster: bool


@dataclass(frozen=True)
class Rule:
    """Options that are of use under a condition alone, and what to do where it is not met."""

    names: tuple[str, ...]
    serves: Callable[[Asked], bool]
    cure: str


RULES = (
    Rule(
        ("backend", "device", "threads", "trust_engine"),
        lambda asked: asked.artefacts > 0,
        "it is of exported models, and there is none: published networks run in PyTorch on the "
        "CPU (network:, --weights, --multi-scale, --flip), topics not at all; leave it out",
    ),
    Rule(
        ("precision",),
        lambda asked: asked.plain > 0,
        "every model names its own (MODEL@PRECISION), or is a published network or a topic: leave "
        "it out",
    ),
    Rule(
        ("multi_scale", "flip"),
        lambda asked: asked.networks > 0,
        "it is of published networks: name one beside the topics, or leave it out",
    ),
    Rule(
        ("weights",),
        lambda asked: asked.networks == 1,
        "it is the checkpoint of one published network: name one model",
    ),
    Rule(
        ("topic", "depth_topic", "points_topic", "label_topic", "world", "tolerance_ms",
         "camera_matrix"),
        lambda asked: asked.bags > 0,
        "it is of bags, and none is among the data: leave it out",
    ),
    Rule(
        ("bits", "max_pixels", "max_jpeg_scans"),
        lambda asked: asked.bags + asked.pictures > 0,
        "it is of bags and folders of pictures; corpora and data sets are read as they were "
        "written: leave it out",
    ),
    Rule(
        ("unit",),
        lambda asked: asked.frames > 0,
        "it is of folders of frames, and none is among the data: leave it out",
    ),
    Rule(
        ("hfov", "max_depth", "crop"),
        lambda asked: asked.bags + asked.frames > 0,
        "it is of depth, and the data are pictures with labels alone: leave it out",
    ),
    Rule(
        ("per_frame",),
        lambda asked: asked.form in (Form.BAG, Form.DATA),
        "it adds each frame to one model's table of depth: give --out FOLDER, whose frames.csv "
        "has them",
    ),
    Rule(
        ("workers",),
        lambda asked: not asked.cluster,
        "the cluster of --ray has as many as it has cores: leave it out",
    ),
)  # fmt: skip


def refuse_useless(
    options: argparse.Namespace, asked: Asked, parser: argparse.ArgumentParser
) -> None:
    """
    :param parser: where the options' defaults and spellings are from.
    :raises InputError: if an option was given that nothing here has a use for.
    """
    spelt = {action.dest: action.option_strings[-1] for action in parser._actions
             if action.option_strings}  # fmt: skip
    for rule in RULES:
        for name in rule.names:
            if getattr(options, name) != parser.get_default(name) and not rule.serves(asked):
                raise InputError(f"{spelt[name]} has no use here: {rule.cure}")


_OF_INSTANCES = frozenset(
    (
        *("model", "images", "instances", "limit", "out", "json", "backend", "precision"),
        *("device", "threads", "trust_engine", "bits", "max_pixels", "max_jpeg_scans"),
    )
)


def refuse_beside_instances(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """As :func:`refuse_useless`, for ``--instances``, which has no other truth beside it."""
    others = [name for name in ("bag", "data", "labels") if getattr(options, name)]
    if others or options.images is None:
        why = f"the truth is --{others[0]}" if others else "there is no --images"
        raise InputError(
            f"--instances has no use here: it is of the pictures of --images alone, and {why}: "
            "leave one of them out, or name the pictures"
        )
    for action in parser._actions:
        name = action.dest
        if name in _OF_INSTANCES or not hasattr(options, name):
            continue
        if getattr(options, name) != parser.get_default(name):
            raise InputError(
                f"{action.option_strings[-1]} has no use here: --instances compares exported "
                "models with annotated things: leave it out"
            )
