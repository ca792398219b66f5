"""The verbs of ``dense-perception``: what there is, under which heading, and what was renamed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dense_perception.core.errors import InputError


@dataclass(frozen=True)
class Verb:
    """One word of the command line.

    ``module`` has ``HELP``, ``EXAMPLES``, ``add_arguments`` and ``main``; it is empty where the
    word needs one of its ``kinds`` after it.
    """

    line: str
    module: str = ""
    kinds: Mapping[str, Verb] = field(default_factory=dict)


_COMMANDS = "dense_perception.commands"

HEADINGS: dict[str, dict[str, Verb]] = {
    "use": {
        "run": Verb("depth and labels of images, videos, cameras or bags", f"{_COMMANDS}.run"),
        "demo": Verb("play a small bag through depth_node", f"{_COMMANDS}.demo"),
        "replay": Verb("publish a bag on its ROS 2 topics", f"{_COMMANDS}.replay"),
    },
    "models": {
        "models": Verb("list the models on this machine", f"{_COMMANDS}.models"),
        "get": Verb("fetch a published model and make it ready", f"{_COMMANDS}.get"),
        "fetch": Verb("download published weights", f"{_COMMANDS}.fetch"),
        "export": Verb("turn a checkpoint into ONNX files", f"{_COMMANDS}.export"),
        "import": Verb("run an ONNX file of others", f"{_COMMANDS}.import_model"),
        "compile": Verb("compile a model to checked engines", f"{_COMMANDS}.compile"),
    },
    "data and training": {
        "data": Verb(
            "make a corpus to train on, or look into one",
            kinds={
                "synthesize": Verb("generate rooms or Doom maps", f"{_COMMANDS}.data_synthesize"),
                "convert": Verb("colour and depth images to a corpus", f"{_COMMANDS}.data_convert"),
                "info": Verb("depth, classes and source of a corpus", f"{_COMMANDS}.data_info"),
            },
        ),
        "extract": Verb("recordings to a corpus", f"{_COMMANDS}.extract"),
        "train": Verb(
            "train a model",
            f"{_COMMANDS}.train",
            {"soup": Verb("average a model with its continuation", f"{_COMMANDS}.train_soup")},
        ),
    },
    "measuring": {
        "evaluate": Verb("compare a model with recorded depth or labels", f"{_COMMANDS}.evaluate"),
        "benchmark": Verb(
            "measure speed, memory and agreement",
            kinds={
                "model": Verb("a model end to end, by backend", f"{_COMMANDS}.benchmark_model"),
                "stream": Verb("depth_node on a live stream", f"{_COMMANDS}.benchmark_stream"),
                "cameras": Verb("several cameras in one node", f"{_COMMANDS}.benchmark_cameras"),
                "nav2": Verb(
                    "answers that Nav2's semantic layer takes", f"{_COMMANDS}.benchmark_nav2"
                ),
                "outputs": Verb("each output of multitask_node", f"{_COMMANDS}.benchmark_outputs"),
                "parity": Verb(
                    "precisions and backends against fp32", f"{_COMMANDS}.benchmark_parity"
                ),
                "scale": Verb("scale sources on a corpus", f"{_COMMANDS}.benchmark_scale"),
                "plan": Verb("predict the speed on another device", f"{_COMMANDS}.benchmark_plan"),
            },
        ),
    },
}

VERBS: dict[str, Verb] = {name: v for group in HEADINGS.values() for name, v in group.items()}

RENAMED = {
    "stream-benchmark": "benchmark stream",
    "cameras-benchmark": "benchmark cameras",
    "nav2-benchmark": "benchmark nav2",
    "outputs-benchmark": "benchmark outputs",
    "parity": "benchmark parity",
    "scale-accuracy": "benchmark scale",
    "plan": "benchmark plan",
    "synthesize": "data synthesize",
    "soup": "train soup",
}
"""Earlier spelling to today's."""


def resolve(words: Sequence[str]) -> tuple[str, Verb, list[str]]:
    """The verb that ``words`` start with, by its full name, and the words after it.

    ``benchmark --help`` resolves to ``benchmark`` itself, which has kinds but no module.

    :raises InputError: for an unknown word, naming the nearest ones, and for an earlier spelling,
        naming today's.
    """
    name, *rest = words
    if name in RENAMED:
        raise InputError(f"{name!r} is now {RENAMED[name]!r}")
    if name not in VERBS:
        raise InputError(f"there is no command {name!r}{_hint(name, VERBS)}")
    verb = VERBS[name]
    if not verb.kinds or not rest or rest[0].startswith("-"):
        return name, verb, rest
    word, *after = rest
    if word in verb.kinds:
        return f"{name} {word}", verb.kinds[word], after
    if verb.module:
        return name, verb, rest
    if name == "benchmark" and not difflib.get_close_matches(word, verb.kinds):
        raise InputError(f"'benchmark {word}' is now 'benchmark model {word}'")
    raise InputError(f"there is no command '{name} {word}'{_hint(word, verb.kinds, name)}")


def _hint(word: str, known: Mapping[str, Verb], before: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=2)
    hint = f", did you mean {' or '.join(close)}?" if close else ":"
    heading = f"Kinds of {before}" if before else "Commands"
    return f"{hint} {heading}: {', '.join(known)}"
