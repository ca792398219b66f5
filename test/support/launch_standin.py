"""A stand-in for ``launch`` and ``launch_ros`` where they are not installed.

It knows just what this project's launch files use, resolves them to command lines, and raises on
anything else. It is no proof that the real ``launch_ros`` accepts a file: the same tests run
against the real one wherever it is importable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


@dataclass
class Context:
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str
    description: str


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: Context) -> str:
        return context.values[self.name]


@dataclass
class OpaqueFunction:
    function: Any


@dataclass
class ParameterValue:
    value: str
    value_type: type

    def evaluate(self) -> Any:
        value = self.value if self.value_type is str else yaml.safe_load(self.value)
        if not isinstance(value, self.value_type):
            raise ValueError(f"{self.value!r} is not a {self.value_type.__name__}")
        return value


@dataclass
class LaunchDescription:
    entities: list[Any]


@dataclass
class LifecycleNode:
    package: str
    executable: str
    name: str
    namespace: str
    parameters: list[Any]
    remappings: list[tuple[str, str]]
    ros_arguments: list[str]
    additional_env: dict[str, str]
    output: str
    emulate_tty: bool


@dataclass(frozen=True)
class ResolvedNode:
    """What would be run: the executable's name, its arguments, variables added for it alone."""

    package: str
    executable: str
    arguments: list[str]
    environment: dict[str, str]


def resolve(path: Path, given: Mapping[str, str], folder: Path) -> list[ResolvedNode]:
    """The nodes a launch file starts with these arguments; parameter files go to ``folder``."""
    with _installed():
        namespace: dict[str, Any] = {"__file__": str(path), "__name__": "launch_file"}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        description = namespace["generate_launch_description"]()
        context = Context()
        nodes: list[ResolvedNode] = []
        for entity in description.entities:
            if isinstance(entity, DeclareLaunchArgument):
                context.values[entity.name] = given.get(entity.name, entity.default_value)
            elif isinstance(entity, OpaqueFunction):
                nodes += [_node(each, folder) for each in entity.function(context)]
            else:
                raise TypeError(f"the stand-in does not know {type(entity).__name__}")
        unknown = set(given) - set(context.values)
        if unknown:
            raise ValueError(f"the launch file has no arguments {sorted(unknown)}")
        return nodes


def declared_arguments(path: Path) -> dict[str, DeclareLaunchArgument]:
    with _installed():
        namespace: dict[str, Any] = {"__file__": str(path), "__name__": "launch_file"}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        entities = namespace["generate_launch_description"]().entities
    return {each.name: each for each in entities if isinstance(each, DeclareLaunchArgument)}


def _node(node: LifecycleNode, folder: Path) -> ResolvedNode:
    arguments = ["--ros-args", "-r", f"__node:={node.name}"]
    if node.namespace:
        arguments += ["-r", f"__ns:=/{node.namespace.lstrip('/')}"]
    for index, entry in enumerate(node.parameters):
        if isinstance(entry, str):
            arguments += ["--params-file", entry]
        else:
            values = {name: value.evaluate() for name, value in entry.items()}
            if not values:
                continue
            file = folder / f"launch_params_{index}.yaml"
            file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
            arguments += ["--params-file", str(file)]
    for source, target in node.remappings:
        arguments += ["-r", f"{source}:={target}"]
    arguments += node.ros_arguments
    return ResolvedNode(node.package, node.executable, arguments, node.additional_env)


@contextmanager
def _installed() -> Iterator[None]:
    """Puts the stand-in where the launch file imports from, for the time of the block."""
    contents = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "OpaqueFunction": OpaqueFunction,
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"LifecycleNode": LifecycleNode},
        "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
    }
    before = {name: sys.modules.get(name) for name in contents}
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old
