"""Which options a command has, and which ones a text for its user names."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator
from importlib import import_module

from dense_perception.commands.verbs import VERBS

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
# Options of other programs that texts name: ROS 2, pip and the package's own replay process.
FOREIGN = {"--ros-args", "--params-file", "--log-level", "--no-deps", "--help", "--version"}


def verbs() -> Iterator[tuple[str, str]]:
    """Each command's full name and its module."""
    for name, verb in VERBS.items():
        if verb.module:
            yield name, verb.module
        for kind, below in verb.kinds.items():
            yield f"{name} {kind}", below.module


@functools.cache
def options_of(module: str) -> frozenset[str]:
    """The options of the command that ``module`` is."""
    parser = argparse.ArgumentParser()
    import_module(module).add_arguments(parser)
    return frozenset(text for action in parser._actions for text in action.option_strings)


def not_there(module: str, text: str) -> set[str]:
    """Options named in ``text`` that neither that command has nor another one the text names."""
    missing = set(OPTION.findall(text)) - FOREIGN - options_of(module)
    if missing:
        for name, other in verbs():
            if re.search(rf"(dense-perception |`){name}\b", text):
                missing -= options_of(other)
    return missing
