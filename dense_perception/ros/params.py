"""The nodes' parameters, declared once: type, default, meaning, range, when they may change.

A field of these frozen dataclasses is one ROS parameter. The documentation, the commented YAML
and the declarations on the node all come from this table; it needs no ROS to be read.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeVar, get_type_hints

from dense_perception.core.errors import InputError

Parameters = TypeVar("Parameters", bound="PerceptionParameters")


class Changes(str, Enum):
    """When a parameter may be set."""

    AT_START = "at start"
    """Read-only once the process runs."""
    UNCONFIGURED = "while unconfigured"
    """Read at the configure transition."""
    ANY_TIME = "any time"
    """Used from the next frame on."""


@dataclass(frozen=True)
class ParameterSpec:
    """One row of the table; ``low`` and ``high`` are inclusive."""

    name: str
    type: type
    default: Any
    description: str
    changes: Changes
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def constraint(self) -> str:
        """What values are allowed, in words; empty if any of the type is."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None:
            return f"{self.low:g} to {self.high:g}"
        return ""

    def check(self, value: Any) -> None:
        """
        :raises InputError: if ``value`` is of another type or outside the allowed values.
        """
        kind: type = type(value)  # bool is an int to isinstance
        if kind is not self.type:
            example = f": write {float(value)}" if self.type is float and _whole(value) else ""
            raise InputError(
                f"parameter {self.name} is {value!r} ({_type_name(kind)}), expected "
                f"{_type_name(self.type)}{example}"
            )
        if self.type is float and not math.isfinite(value):
            raise InputError(f"parameter {self.name} is {value}, expected {self.constraint}")
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise InputError(f"parameter {self.name} is {value}, expected {self.constraint}")
        if self.choices and value not in self.choices:
            raise InputError(f"parameter {self.name} is {value!r}, expected {self.constraint}")


def parameter(
    default: Any,
    description: str,
    *,
    changes: Changes = Changes.UNCONFIGURED,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is a ROS parameter."""
    metadata = {
        "description": description,
        "changes": changes,
        "low": low,
        "high": high,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class PerceptionParameters:
    """What every node of this package has.

    :raises InputError: naming the parameter, its value and what was expected.
    """

    model: str = parameter(
        "dpt_tiny_indoor", "Name of a model, or path of an ONNX file that carries its card."
    )
    backend: str = parameter(
        "auto",
        "What runs the graph; auto measures what is installed and says what it picked and why.",
        choices=("auto", "onnxruntime", "openvino", "tensorrt"),
    )
    precision: str = parameter(
        "auto",
        "Which of the model's files to run; auto takes the fastest.",
        choices=("auto", "fp32", "fp16", "int8"),
    )
    device: str = parameter("cpu", "Device of the backend, such as cpu, gpu or cuda.")
    threads: int = parameter(0, "Threads of the backend; 0 means all cores.", low=0, high=256)
    trust_engine: bool = parameter(
        False,
        "Run the backend without comparing it with the reference first; /diagnostics warns.",
    )
    autostart: bool = parameter(
        True,
        "Configure and activate at start; false leaves that to a lifecycle manager.",
        changes=Changes.AT_START,
    )
    image_transport: str = parameter(
        "raw",
        "raw subscribes to image (sensor_msgs/Image), compressed to image/compressed "
        "(sensor_msgs/CompressedImage: JPEG or PNG).",
        choices=("raw", "compressed"),
    )
    input_reliability: str = parameter(
        "best_effort",
        "QoS of the subscriptions. best_effort (sensor data) matches every publisher; reliable "
        "matches reliable publishers only and may slow the camera driver down.",
        choices=("best_effort", "reliable"),
    )
    output_reliability: str = parameter(
        "reliable",
        "QoS of the publishers. reliable matches every subscriber; best_effort matches "
        "best_effort subscribers only.",
        choices=("reliable", "best_effort"),
    )
    default_hfov_deg: float = parameter(
        60.0,
        "Horizontal field of view in degrees that is assumed while there is no usable "
        "camera_info. Metric depth scales with it: calibrate the camera.",
        low=1.0,
        high=170.0,
    )
    camera_matrix: str = parameter(
        "auto",
        "Which matrix of camera_info describes the image: K the one the camera gives, P the "
        "rectified one; auto takes P if the topic's name says rectified (image_rect).",
        changes=Changes.ANY_TIME,
        choices=("auto", "K", "P"),
    )
    output_size: str = parameter(
        "input",
        "Size of the outputs: that of the input image, or that of the network (less work).",
        choices=("input", "network"),
    )
    max_output_side: int = parameter(
        1280,
        "Longest side of the outputs in pixels; larger ones are scaled down, keeping the shape.",
        low=16,
        high=16384,
    )
    diagnostics_period_s: float = parameter(
        1.0,
        "Seconds between two messages on /diagnostics.",
        changes=Changes.AT_START,
        low=0.1,
        high=60.0,
    )

    def __post_init__(self) -> None:
        for spec in table(type(self)):
            spec.check(getattr(self, spec.name))
        if not self.model.strip():
            raise InputError(
                "parameter model is empty, expected a model's name or the path of an ONNX file: "
                "`dense-perception models` lists the names"
            )


@dataclass(frozen=True)
class DepthParameters(PerceptionParameters):
    """The parameters of ``depth_node``."""

    depth_encoding: str = parameter(
        "32FC1",
        "Encoding of ~/depth/image: 32FC1 is metres with NaN for invalid pixels, 16UC1 is "
        "millimetres with 0 for them.",
        changes=Changes.ANY_TIME,
        choices=("32FC1", "16UC1"),
    )
    min_depth_m: float = parameter(
        0.0,
        "Depth below this many metres is published as invalid.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1e6,
    )
    max_depth_m: float = parameter(
        1e6,
        "Depth above this many metres is published as invalid.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1e6,
    )
    points_rgb: bool = parameter(
        True,
        "~/points carries the colour of each pixel (XYZRGB); false leaves it out (XYZ).",
        changes=Changes.ANY_TIME,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.min_depth_m < self.max_depth_m:
            raise InputError(
                f"min_depth_m is {self.min_depth_m} and max_depth_m is {self.max_depth_m}, "
                "expected the first to be smaller: widen the range before you narrow it"
            )


def table(parameters: type[PerceptionParameters]) -> tuple[ParameterSpec, ...]:
    """The rows of a parameter class, in order of declaration."""
    hints = get_type_hints(parameters)
    rows = []
    for entry in fields(parameters):
        assert entry.default is not MISSING
        rows.append(ParameterSpec(entry.name, hints[entry.name], entry.default, **entry.metadata))
    return tuple(rows)


def changed(
    current: Parameters, values: Mapping[str, Any], *, configured: bool = False
) -> Parameters:
    """``current`` with ``values`` replaced, names that are no parameter left out.

    :raises InputError: for a wrong value, or for a change that has to wait for another state.
    """
    specs = {spec.name: spec for spec in table(type(current))}
    known = {name: value for name, value in values.items() if name in specs}
    for name, value in known.items():
        specs[name].check(value)
        if value == getattr(current, name):
            continue
        if specs[name].changes is Changes.AT_START:
            raise InputError(f"parameter {name} is read at start only: start the node with it")
        if specs[name].changes is Changes.UNCONFIGURED and configured:
            raise InputError(
                f"parameter {name} is read at the configure transition, and the node is already "
                "configured: deactivate and clean it up, set the parameter, configure it again"
            )
    return replace(current, **known)


def from_overrides(parameters: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    """The parameters of a node that is started with ``values``; other names are left out.

    :raises InputError: for a wrong value.
    """
    names = {spec.name for spec in table(parameters)}
    return parameters(**{name: value for name, value in values.items() if name in names})


def unknown_names(
    parameters: type[PerceptionParameters], names: Iterable[str]
) -> list[tuple[str, str]]:
    """Names that are no parameter, each with the closest one that is ("" if none is close)."""
    known = [spec.name for spec in table(parameters)]
    return [
        (name, next(iter(difflib.get_close_matches(name, known, n=1)), ""))
        for name in names
        if name not in known and name not in _ROS_OWN and "." not in name
    ]


_ROS_OWN = ("use_sim_time", "start_type_description_service")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _type_name(kind: type) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number with a point"}
    return names.get(kind, "a text" if kind is str else kind.__name__)
