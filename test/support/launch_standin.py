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
    choices: tuple[str, ...] | None = None

    def check(self, value: str) -> str:
        if self.choices is not None and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}, expected one of {self.choices}")
        return value


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
    value: Any
    value_type: type

    def __post_init__(self) -> None:
        # launch_ros converts substitutions only, and takes a text for nothing but a text.
        if not isinstance(self.value, self.value_type):
            raise TypeError(f"value={self.value!r} is not an instance of {self.value_type}")


@dataclass
class LaunchDescription:
    entities: list[Any]


@dataclass
class Node:
    package: str
    executable: str
    name: str
    parameters: list[Any]
    remappings: list[tuple[str, str]]
    additional_env: dict[str, str]
    output: str
    namespace: str = ""
    arguments: list[str] = field(default_factory=list)
    ros_arguments: list[str] = field(default_factory=list)
    emulate_tty: bool = False
    respawn: bool = False
    respawn_delay: float = 0.0


@dataclass
class LifecycleNode(Node):
    pass


@dataclass
class ExecuteProcess:
    name: str
    cmd: list[str]
    output: str
    additional_env: dict[str, str]
    on_exit: list[Any] = field(default_factory=list)


@dataclass
class Shutdown:
    reason: str


@dataclass
class SetLaunchConfiguration:
    name: str
    value: str


@dataclass
class OnProcessExit:
    on_exit: Any


@dataclass
class RegisterEventHandler:
    handler: OnProcessExit


@dataclass
class PythonLaunchDescriptionSource:
    path: str


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: list[tuple[str, Any]]


@dataclass(frozen=True)
class ResolvedNode:
    """What would be run: the executable's name, its arguments, variables added for it alone."""

    package: str
    executable: str
    arguments: list[str]
    environment: dict[str, str]
    respawn: bool = False
    respawn_delay: float = 0.0


def resolve(path: Path, given: Mapping[str, str], folder: Path) -> list[ResolvedNode]:
    """The nodes a launch file starts with these arguments; parameter files go to ``folder``."""
    return [each for each in _resolve(path, given, folder) if isinstance(each, ResolvedNode)]


def processes(path: Path, given: Mapping[str, str], folder: Path) -> list[ExecuteProcess]:
    """What it starts besides nodes, in order; what follows a process is in its ``on_exit``."""
    return [each for each in _resolve(path, given, folder) if isinstance(each, ExecuteProcess)]


def _resolve(
    path: Path,
    given: Mapping[str, str],
    folder: Path,
    own_arguments: Mapping[str, str] | None = None,
) -> list[ResolvedNode | ExecuteProcess]:
    # As in the real launch, an included file sees what its includer was given.
    context = Context(dict(given))
    nodes: list[ResolvedNode | ExecuteProcess] = []
    declared: set[str] = set()
    entities = _entities(path)
    while entities:
        entity = entities.pop(0)
        if isinstance(entity, (ResolvedNode, ExecuteProcess)):
            nodes.append(entity)
        elif isinstance(entity, Node):
            own = folder / str(len(nodes))
            own.mkdir(parents=True, exist_ok=True)
            nodes.append(_node(entity, own))
        elif isinstance(entity, DeclareLaunchArgument):
            value = given.get(entity.name, entity.default_value)
            context.values[entity.name] = entity.check(value)
            declared.add(entity.name)
        elif isinstance(entity, OpaqueFunction):
            with _installed():
                entities = [*entity.function(context), *entities]
        elif isinstance(entity, SetLaunchConfiguration):
            context.values[entity.name] = entity.value
        elif isinstance(entity, RegisterEventHandler):
            pass  # what becomes of a process that ended is for the real launch
        elif isinstance(entity, IncludeLaunchDescription):
            passed = {
                name: value if isinstance(value, str) else value.perform(context)
                for name, value in entity.launch_arguments
            }
            inside = Path(entity.source.path)
            nodes += _resolve(inside, {**context.values, **passed}, folder / "included", passed)
            declared |= declared_arguments(inside).keys()
        else:
            raise TypeError(f"the stand-in does not know {type(entity).__name__}")
    unknown = set(given if own_arguments is None else own_arguments) - declared
    if unknown:
        raise ValueError(f"the launch file has no arguments {sorted(unknown)}")
    return nodes


def declared_arguments(path: Path) -> dict[str, DeclareLaunchArgument]:
    return {each.name: each for each in _entities(path) if isinstance(each, DeclareLaunchArgument)}


def included_files(path: Path) -> list[str]:
    """The names of the files that a launch file includes whatever its arguments are."""
    return [
        Path(each.source.path).name
        for each in _entities(path)
        if isinstance(each, IncludeLaunchDescription)
    ]


def _entities(path: Path) -> list[Any]:
    with _installed():
        namespace: dict[str, Any] = {"__file__": str(path), "__name__": "launch_file"}
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        entities: list[Any] = namespace["generate_launch_description"]().entities
        return entities


def _node(node: Node, folder: Path) -> ResolvedNode:
    arguments = [*node.arguments, "--ros-args", "-r", f"__node:={node.name}"]
    if node.namespace:
        arguments += ["-r", f"__ns:=/{node.namespace.lstrip('/')}"]
    for index, entry in enumerate(node.parameters):
        if isinstance(entry, str):
            arguments += ["--params-file", entry]
        else:
            values = {
                name: value.value if isinstance(value, ParameterValue) else value
                for name, value in entry.items()
            }
            if not values:
                continue
            file = folder / f"launch_params_{index}.yaml"
            file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
            arguments += ["--params-file", str(file)]
    for source, target in node.remappings:
        arguments += ["-r", f"{source}:={target}"]
    arguments += node.ros_arguments
    return ResolvedNode(
        node.package,
        node.executable,
        arguments,
        node.additional_env,
        node.respawn,
        node.respawn_delay,
    )


@contextmanager
def _installed() -> Iterator[None]:
    """Puts the stand-in where the launch file imports from, for the time of the block."""
    contents = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "ExecuteProcess": ExecuteProcess,
            "IncludeLaunchDescription": IncludeLaunchDescription,
            "OpaqueFunction": OpaqueFunction,
            "RegisterEventHandler": RegisterEventHandler,
            "SetLaunchConfiguration": SetLaunchConfiguration,
            "Shutdown": Shutdown,
        },
        "launch.event_handlers": {"OnProcessExit": OnProcessExit},
        "launch.launch_description_sources": {
            "PythonLaunchDescriptionSource": PythonLaunchDescriptionSource
        },
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"LifecycleNode": LifecycleNode, "Node": Node},
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
