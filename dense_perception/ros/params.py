"""The nodes' parameters, declared once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dense_perception.backends.select import ENGINE_BUILDS
from dense_perception.core.errors import InputError
from dense_perception.core.limits import MAX_JPEG_SCANS, MAX_PIXELS
from dense_perception.core.relabel import AUTOMATIC_VOID
from dense_perception.ros.parameter_table import Changes, ParameterTable, parameter
from dense_perception.runtime.scale.known import SCALE_SOURCES

_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MOST_CAMERAS = 16


def _model(default: str) -> Any:
    return parameter(
        default,
        "Name of a model, or path of an ONNX file that carries its card.",
        changes=Changes.RELOADS,
    )


@dataclass(frozen=True)
class PerceptionParameters(ParameterTable):
    """What every node of this package has."""

    model: str = _model("dpt_tiny_indoor")
    backend: str = parameter(
        "auto",
        "The runtime; auto measures those that are installed, takes the fastest and says why.",
        changes=Changes.RELOADS,
        choices=(
            "auto",
            "onnxruntime",
            "openvino",
            "tensorrt",
            "torch_tensorrt",
            "onnxruntime_tensorrt",
        ),
    )
    precision: str = parameter(
        "auto",
        "Which of the model's files to run; auto takes the fastest one.",
        changes=Changes.RELOADS,
        choices=("auto", "fp32", "fp16", "int8", "fp8"),
    )
    device: str = parameter(
        "auto",
        "Where the backend runs: cpu, gpu, or one of several as cuda:1; dla:0 on a Jetson. auto is "
        "NVIDIA's GPU where it works, else the CPU; the console and /diagnostics say why.",
        changes=Changes.RELOADS,
    )
    engine_build: str = parameter(
        "background",
        "What happens where the model's TensorRT engine is not built yet, which takes minutes. "
        "background answers with the best backend that is ready, builds in a process of its own "
        "and changes over; block waits; never goes without.",
        changes=Changes.RELOADS,
        choices=ENGINE_BUILDS,
    )
    threads: int = parameter(
        0,
        "CPU threads of the backend; 0 uses all cores.",
        changes=Changes.RELOADS,
        low=0,
        high=256,
    )
    trust_engine: bool = parameter(
        False,
        "Skip the comparison of the backend with the reference; /diagnostics then warns.",
        changes=Changes.RELOADS,
    )
    autostart: bool = parameter(
        True,
        "Configure and activate at start; set false to leave that to a lifecycle manager.",
        changes=Changes.AT_START,
    )
    cameras: tuple[str, ...] = parameter(
        (),
        "Names of the cameras that share the model. The node subscribes to NAME/image and "
        "NAME/camera_info and publishes below ~/NAME. Leave it empty for one camera without a "
        "name: image and camera_info in, outputs below ~.",
    )
    image_transport: str = parameter(
        "raw",
        "raw subscribes to image (sensor_msgs/Image), compressed to image/compressed "
        "(sensor_msgs/CompressedImage: JPEG, PNG, H.264 and others), ffmpeg to image/ffmpeg "
        "(FFMPEGPacket), foxglove to image/foxglove (CompressedVideo). Each follows a remapping of "
        "image. Videos need the extra video and are best received with input_reliability reliable.",
        choices=("raw", "compressed", "ffmpeg", "foxglove"),
    )
    input_reliability: str = parameter(
        "best_effort",
        "QoS of the subscriptions. best_effort (sensor data) matches every publisher; reliable "
        "matches only reliable publishers and may slow down the camera driver.",
        choices=("best_effort", "reliable"),
    )
    output_reliability: str = parameter(
        "reliable",
        "QoS of the publishers. reliable matches every subscriber; best_effort matches only "
        "best_effort subscribers.",
        choices=("reliable", "best_effort"),
    )
    significant_bits: int = parameter(
        0,
        "How many bits of 16-bit images the camera uses: 10 or 12 for many infrared, thermal and "
        "machine-vision cameras. 0 takes all 16 and warns where the high ones are never used.",
        low=0,
        high=16,
    )
    max_pixels: int = parameter(
        MAX_PIXELS,
        "Images of more pixels than this are refused, compressed ones before they are decoded. "
        "Lower it to what your camera has, so that a damaged or hostile message costs little.",
        low=1,
        high=2**31 - 1,
    )
    max_jpeg_scans: int = parameter(
        MAX_JPEG_SCANS,
        "Progressive JPEGs of more scans than this are refused; about ten are usual, and each one "
        "costs time.",
        low=1,
        high=10_000,
    )
    default_hfov_deg: float = parameter(
        60.0,
        "Horizontal field of view in degrees to assume while there is no usable camera_info. "
        "Metric depth scales with it, so calibrate the camera.",
        changes=Changes.ANY_TIME,
        low=1.0,
        high=170.0,
    )
    camera_matrix: str = parameter(
        "auto",
        "Which matrix of camera_info describes the image: K for an image as the camera took it, P "
        "for a rectified one. auto takes P if the image's name has the part rect (image_rect).",
        changes=Changes.ANY_TIME,
        choices=("auto", "K", "P"),
    )
    output_size: str = parameter(
        "input",
        "Size of the outputs: that of the input image, or the network's own (less work).",
        changes=Changes.ANY_TIME,
        choices=("input", "network"),
    )
    max_output_side: int = parameter(
        1280,
        "Longest side of the outputs in pixels; larger ones are scaled down, keeping the aspect.",
        changes=Changes.ANY_TIME,
        low=16,
        high=16384,
    )
    jpeg_quality: int = parameter(
        80,
        "Quality of JPEG images on topics that end in /compressed; 100 is the best.",
        changes=Changes.ANY_TIME,
        low=1,
        high=100,
    )
    frame_id: str = parameter(
        "",
        "Frame of the outputs' headers, for drivers whose own is missing or wrong. With several "
        "cameras {camera} stands for the name of each, as in {camera}_optical. Empty keeps the "
        "image's frame.",
        changes=Changes.ANY_TIME,
    )
    max_rate_hz: float = parameter(
        0.0,
        "The most images a second that are answered, of each camera; further ones are left out. 0 "
        "is no limit.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1000.0,
    )
    require_camera_info: bool = parameter(
        False,
        "Answer no image without a usable camera_info, instead of assuming default_hfov_deg.",
        changes=Changes.ANY_TIME,
    )
    bond_heartbeat_period: float = parameter(
        0.1,
        "Seconds between heartbeats on bond for nav2_lifecycle_manager, while the node is active "
        "and autostart is false; 0 sends none. Needs the package bond.",
        low=0.0,
        high=10.0,
    )
    diagnostics_period_s: float = parameter(
        1.0,
        "Seconds between messages on /diagnostics.",
        changes=Changes.AT_START,
        low=0.1,
        high=60.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_model()
        check_camera_names(self.cameras)
        check_frame_id(self.frame_id, self.cameras)

    def _check_model(self) -> None:
        """
        :raises InputError: if none is named.
        """
        if not self.model.strip():
            raise InputError(
                "parameter model is empty, expected a model's name or the path of an ONNX file: "
                "`dense-perception models` lists the names"
            )


@dataclass(frozen=True)
class ScaleParameters(PerceptionParameters):
    """Where metres come from, and how much depth is smoothed."""

    scale_source: str = parameter(
        "none",
        "What makes relative depth metric, or corrects metric depth: a factor, the camera's height "
        "above the floor, or depth from another sensor (scale/depth, scale/points or scale/scan). "
        "Nothing is published on ~/depth/image until the scale is known.",
        choices=SCALE_SOURCES,
    )
    scale_factor: float = parameter(
        1.0,
        "Metres per unit of the model's depth, for scale_source factor. Of inverse depth: the "
        "metres of a pixel times the model's value there; its shift is taken as 0.",
        changes=Changes.ANY_TIME,
        low=1e-6,
        high=1e6,
    )
    camera_height_m: float = parameter(
        1.0,
        "Height of the camera above the floor in metres, for scale_source camera_height.",
        changes=Changes.ANY_TIME,
        low=0.01,
        high=100.0,
    )
    camera_pitch_deg: float = parameter(
        0.0,
        "How far the camera is tilted down, in degrees, for scale_source camera_height.",
        changes=Changes.ANY_TIME,
        low=-60.0,
        high=80.0,
    )
    temporal_smoothing: float = parameter(
        0.0,
        "Reduces flicker of metric depth: the weight of earlier frames where they agree with this "
        "one. 0 is off, 0.7 works well. While the camera approaches fast, depth lags a few frames.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=0.95,
    )


@dataclass(frozen=True)
class CloudParameters(ScaleParameters):
    """What the nodes that publish a cloud have besides."""

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
        "Whether ~/points carries the colour of each pixel (field rgb).",
        changes=Changes.ANY_TIME,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.min_depth_m < self.max_depth_m:
            raise InputError(
                f"min_depth_m is {self.min_depth_m} and max_depth_m is {self.max_depth_m}, "
                "expected the first to be smaller: widen the range before you narrow it"
            )


@dataclass(frozen=True)
class DepthParameters(CloudParameters):
    """The parameters of ``depth_node``."""

    depth_encoding: str = parameter(
        "32FC1",
        "Encoding of ~/depth/image: 32FC1 is metres with NaN for invalid pixels, 16UC1 is "
        "millimetres with 0 for them.",
        changes=Changes.ANY_TIME,
        choices=("32FC1", "16UC1"),
    )


@dataclass(frozen=True)
class SegmentationParameters(CloudParameters):
    """The parameters of ``segmentation_node``."""

    model: str = _model("mult_tiny_indoor")
    label_groups: tuple[str, ...] = parameter(
        (),
        "Groups of classes, each 'NAME: class, class, ...', where * stands for all classes that no "
        "other group names: ['drivable: road, floor', 'obstacle: *']. Groups are numbered in this "
        "order; a class in no group is void. Leave it empty to keep every class of the model.",
        changes=Changes.ANY_TIME,
    )
    first_label: int = parameter(
        0,
        "Label of the first class or group; 1 leaves 0 for the background.",
        changes=Changes.ANY_TIME,
        low=0,
        high=65535,
    )
    void_label: int = parameter(
        AUTOMATIC_VOID,
        "Label of pixels without a class; -1 means 255 in mono8 and 65535 in mono16 masks.",
        changes=Changes.ANY_TIME,
        low=-1,
        high=65535,
    )
    overlay_opacity: float = parameter(
        0.5,
        "How strongly ~/segmentation/overlay is tinted.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1.0,
    )
    points_label: bool = parameter(
        True,
        "Whether ~/points carries the label of each pixel (field label).",
        changes=Changes.ANY_TIME,
    )


@dataclass(frozen=True)
class InstanceOptions(SegmentationParameters):
    """What nodes that publish things have besides."""

    overlay_opacity: float = parameter(
        0.5,
        "How strongly ~/segmentation/overlay is tinted, and the things in ~/instances/overlay, "
        "whose boxes and names stay as they are.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1.0,
    )
    instance_classes: tuple[str, ...] = parameter(
        (),
        "The classes of things to publish, by name: [person, chair]. Leave it empty for all.",
        changes=Changes.ANY_TIME,
    )
    score_threshold: float = parameter(
        0.5,
        "Things with a lower score are not published.",
        changes=Changes.ANY_TIME,
        low=0.0,
        high=1.0,
    )
    max_instances: int = parameter(
        100,
        "The most things of a frame that are published, those with the best scores.",
        changes=Changes.ANY_TIME,
        low=1,
        high=1000,
    )
    tracking: bool = parameter(
        False,
        "Whether things keep their id from frame to frame. One is then published from the second "
        "frame on that it is found in. Needs the package trackers: pip install "
        "'dense_perception[tracking]'.",
        changes=Changes.ANY_TIME,
    )
    track_patience_s: float = parameter(
        2.0,
        "How many seconds a thing may be hidden and keeps its id, with tracking.",
        changes=Changes.ANY_TIME,
        low=0.1,
        high=60.0,
    )


@dataclass(frozen=True)
class InstanceParameters(InstanceOptions):
    """The parameters of ``instance_node``; no model for it comes with the package."""

    model: str = _model("")

    def _check_model(self) -> None:
        """That none is named yet is said where it is to be loaded."""


@dataclass(frozen=True)
class MultitaskParameters(InstanceOptions, DepthParameters):
    """The parameters of ``multitask_node``: those of the other nodes."""


def check_camera_names(names: tuple[str, ...]) -> None:
    """
    :raises InputError: if a name cannot be part of a topic's name, or is there twice.
    """
    for name in names:
        if not _CAMERA_NAME.fullmatch(name):
            raise InputError(
                f"cameras has the name {name!r}, expected a letter followed by letters, digits or "
                "underscores"
            )
    if len(set(names)) < len(names):
        raise InputError(f"cameras is {list(names)}, expected each name once")
    if len(names) > _MOST_CAMERAS:
        raise InputError(f"cameras has {len(names)} names, expected at most {_MOST_CAMERAS}")


def check_frame_id(frame_id: str, cameras: tuple[str, ...]) -> None:
    """
    :raises InputError: if it is no name of a frame, or that of several cameras.
    """
    if frame_id != frame_id.strip() or frame_id.startswith("/"):
        raise InputError(
            f"frame_id is {frame_id!r}, expected a frame's name without blanks or a slash before it"
        )
    if frame_id and len(cameras) > 1 and "{camera}" not in frame_id:
        raise InputError(
            f"frame_id is {frame_id!r} for the cameras {', '.join(cameras)}, expected {{camera}} "
            "in it, which stands for the name of each"
        )
