"""The parameter table as a commented YAML file and as Markdown; both are checked by a test."""

from __future__ import annotations

import textwrap
from typing import Any

from dense_perception.ros.parameter_table import ParameterTable, table


def as_yaml(node: str, parameters: type[ParameterTable]) -> str:
    """A parameter file with every parameter at its default and its description above."""
    lines = [
        f"# Parameters of {node}, all at their defaults: copy this file and pass it with",
        "#   ros2 launch dense_perception perception.launch.py params_file:=PATH",
        "/**:",
        "  ros__parameters:",
    ]
    for spec in table(parameters):
        allowed = f" One of {', '.join(spec.choices)}." if spec.choices else ""
        if spec.low is not None:
            allowed = f" {spec.constraint}."
        text = f"{spec.description}{allowed} Changes {spec.changes.value}."
        lines += [f"    # {line}" for line in textwrap.wrap(text, 92)]
        lines.append(f"    {spec.name}: {_yaml_value(spec.default)}")
    return "\n".join(lines) + "\n"


def as_markdown(parameters: type[ParameterTable]) -> str:
    """A table: name, default, meaning, when it may change."""
    lines = ["| parameter | default | meaning | changes |", "|---|---|---|---|"]
    for spec in table(parameters):
        allowed = f" ({spec.constraint})" if spec.constraint else ""
        lines.append(
            f"| `{spec.name}` | `{_yaml_value(spec.default)}` | {spec.description}{allowed} "
            f"| {spec.changes.value} |"
        )
    return "\n".join(lines) + "\n"


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value) or [""]).replace("'", '"')
    return f'"{value}"' if isinstance(value, str) else repr(value)
