"""One camera of a node: its subscriptions, what becomes of its depth, its outputs, its counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeAlias, TypeVar

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from dense_perception.core.camera import Frame, calibration_doubt, intrinsics_from_info
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, DepthMap, Prediction
from dense_perception.imaging.messages import ImageReader, base_topic, stamp_ns, takes_projection
from dense_perception.ros.convert import rgb_from_message
from dense_perception.ros.diagnostics import FrameLog, NodeLog
from dense_perception.ros.node_graph import (
    Graph,
    Subscription,
    image_profile,
    latched_profile,
    output_profile,
    video_profile,
)
from dense_perception.ros.outputs import Answer, OutputGroup, OutputTopics
from dense_perception.ros.params import CloudParameters, PerceptionParameters
from dense_perception.ros.scale_input import ScaleInput
from dense_perception.ros.topics import TopicSpec
from dense_perception.ros.video_input import KINDS, Backlog, as_compressed_image, packet_class
from dense_perception.runtime.mailbox import RateLimit
from dense_perception.runtime.stabilise import DepthStabiliser

Settings = TypeVar("Settings", bound=CloudParameters)
AnyImage: TypeAlias = Image | CompressedImage

_LOG_PERIOD_S = 5.0
_BITS_FRAMES = 10
# How long a calibration that is required may take to come after the images, without a word.
_INFO_PATIENCE_S = 1.0
# How long nothing may come before the console says so, and how soon it says so again.
_PATIENCE_S, _REMINDER_S = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """A converted image.

    ``header`` is that of its outputs, ``info`` the calibration in use, ``None`` where there is
    none. ``info_problem`` says why a camera_info that came is not used, ``info_doubt`` why one that
    is used may be wrong; both are empty where none came.
    """

    frame: Frame
    header: Header
    info: CameraInfo | None
    info_problem: str
    info_doubt: str = ""


class CameraInput:
    """Subscribes to ``image`` (or ``image/compressed``) and ``camera_info``, below ``camera``.

    ``camera`` is the name of one of several cameras, empty for the only one.
    ``on_image`` gets each image message as it comes, in the executor's thread. Nothing waits for
    camera_info: the newest one is used, if there is one.
    """

    def __init__(
        self,
        graph: Graph,
        camera: str,
        settings: PerceptionParameters,
        on_image: Callable[[AnyImage], None],
        info: CameraInfo | None = None,
    ) -> None:
        self._graph = graph
        self.reader = ImageReader(
            settings.significant_bits, settings.max_pixels, settings.max_jpeg_scans
        )
        self.info = info
        """The newest calibration; given for a camera that was muted meanwhile."""
        transport = settings.image_transport
        self._transport = transport
        self._backlog = None if transport == "raw" else Backlog()
        prefix = f"{camera}/" if camera else ""
        self._info_topic = f"{prefix}camera_info"
        self._latched: Subscription | None = None
        kind: type[AnyImage] = CompressedImage if transport == "compressed" else Image
        profile = image_profile(settings.input_reliability)
        if transport in KINDS:
            kind, profile = packet_class(transport), video_profile(settings.input_reliability)
        self._on_image = on_image
        self._image = graph.subscribe(
            kind,
            image_topic(graph, camera, transport),
            on_image if self._backlog is None else self._on_compressed,
            profile,
            is_image=True,
        )
        self.topic = str(self._image.topic_name)
        """The resolved name of the image topic."""
        self._camera_info = graph.subscribe(
            CameraInfo, self._info_topic, self._on_info, output_profile("best_effort")
        )

    def frame(self, message: AnyImage, matrix: str, frame_id: str = "") -> CameraFrame | None:
        """Convert an image message and find its intrinsics.

        ``matrix``: ``K``, ``P``, or ``auto`` to go by the topic's name. ``frame_id`` replaces that
        of the message, unless it is empty. ``None`` for a packet of a video that gives no picture,
        as one before its first keyframe.

        :raises InputError: if the image cannot be used. An unusable camera_info does not raise.
        """
        if self._backlog is not None and isinstance(message, CompressedImage):
            self._backlog.decode_before(message, self.reader)
        rgb_hwc = rgb_from_message(message, self.reader)
        if rgb_hwc is None:
            return None
        info, intrinsics, problem, doubt = self.info, None, "", ""
        if info is not None:
            height, width = rgb_hwc.shape[:2]
            rectified = takes_projection(matrix, self.topic)
            try:
                intrinsics = intrinsics_from_info(info, width, height, rectified=rectified)
                doubt = calibration_doubt(info, matrix="P" if rectified else matrix)
            except InputError as error:
                info, problem = None, str(error)
        header = message.header
        if frame_id:
            header = Header(stamp=header.stamp, frame_id=frame_id)
        frame = Frame(rgb_hwc, stamp_ns(header), header.frame_id, intrinsics)
        return CameraFrame(frame, header, info, problem, doubt)

    @property
    def info_topic(self) -> str:
        """The resolved name of the topic of the calibration."""
        return self._graph.resolve(self._info_topic)

    def look_for_latched_info(self) -> None:
        """Ask for a calibration that was sent once, before this node was there.

        Only where the graph has such a publisher: others would be told that they do not match.
        """
        if self.info is None and self._latched is None:
            topic = self._graph.resolve(self._info_topic)
            if any(offer.is_latched for offer in self._graph.offers(topic)):
                self._latched = self._graph.subscribe(
                    CameraInfo, self._info_topic, self._on_info, latched_profile()
                )

    def silence(self) -> tuple[str, bool]:
        """Why no image comes, with the cure, and whether that is certain by what publishers say."""
        offers = self._graph.offers(self.topic)
        own, other, transport = "sensor_msgs/msg/Image", "CompressedImage", "compressed"
        neighbour = f"{self.topic}/compressed"
        if self._transport != "raw":
            own = KINDS.get(self._transport, "sensor_msgs/msg/CompressedImage")
            other, transport, neighbour = "Image", "raw", base_topic(self.topic)
        kinds = sorted({offer.kind for offer in offers})
        if kinds and own not in kinds:
            cure = "remap image to a topic of images"
            if f"sensor_msgs/msg/{other}" in kinds:
                cure = f"set image_transport to {transport}"
            return f"{self.topic} carries {', '.join(kinds)}, expected {own}: {cure}", True
        if kinds:
            who = ", ".join(sorted(offer.node for offer in offers))
            return f"{who} publishes {self.topic}, but no image comes: check that it runs", False
        nobody = f"no publisher on {self.topic}"
        if neighbour != self.topic and self._graph.offers(neighbour):
            return f"{nobody}; {neighbour} exists: set image_transport to {transport}", False
        return f"{nobody}: start the camera, or remap image (`ros2 topic list`)", False

    def close(self) -> None:
        """Unsubscribe."""
        latched = [] if self._latched is None else [self._latched]
        self._graph.close(self._image, self._camera_info, *latched)

    def _on_compressed(self, message: CompressedImage) -> None:
        image = as_compressed_image(message)
        if self._backlog is not None:
            self._backlog.put(image)
        self._on_image(image)

    def _on_info(self, message: CameraInfo) -> None:
        self.info = message


def image_topic(graph: Graph, camera: str, transport: str) -> str:
    """The topic to subscribe to; that of compressed images follows a remapping of ``image``."""
    topic = f"{camera}/image" if camera else "image"
    if transport == "raw":
        return topic
    own = f"{topic}/{transport}"
    if graph.resolve(own) != graph.resolve(own, remapped=False):
        return own
    remapped = graph.resolve(topic)
    if remapped == graph.resolve(topic, remapped=False):
        return own
    return remapped if remapped.endswith(f"/{transport}") else f"{remapped}/{transport}"


def check_topics_differ(graph: Graph, settings: PerceptionParameters) -> None:
    """
    :raises InputError: if two cameras take their images from one topic.
    """
    taken: dict[str, str] = {}
    for camera in settings.cameras:
        topic = graph.resolve(image_topic(graph, camera, settings.image_transport))
        if topic in taken:
            raise InputError(
                f"the cameras {taken[topic]} and {camera} both take {topic}, expected a topic for "
                "each: in the launch file write {camera} for its name, as in "
                "input_image_topic:=/{camera}/image_raw"
            )
        taken[topic] = camera


class DepthRefinement:
    """What happens to depth between the model and the publishers: scale, smoothing, limits.

    Made anew at each activation. ``problem`` says what the scale lacks; empty is nothing.
    """

    def __init__(self, graph: Graph, log: NodeLog, camera: str, source: str) -> None:
        self.problem = ""
        self._scale = ScaleInput(graph, log, camera, source) if source != "none" else None
        self._stabiliser = DepthStabiliser()

    def apply(self, frame: Frame, prediction: Prediction, settings: CloudParameters) -> Prediction:
        """The refined prediction; called by the worker thread."""
        if self._scale is not None:
            prediction = self._scale.apply(frame, prediction, settings)
            self.problem = self._scale.status if self._scale.is_unknown else ""
        depth, strength = prediction.depth, settings.temporal_smoothing
        if depth is None:
            return prediction
        if strength > 0:
            depth = self._stabiliser.apply(frame, depth, strength)
        # Here and not in the outputs, which would each do it again.
        depth = limited(depth, settings.min_depth_m, settings.max_depth_m)
        return prediction if depth is prediction.depth else replace(prediction, depth=depth)

    def close(self) -> None:
        """Unsubscribe; safe to repeat."""
        if self._scale is not None:
            self._scale.close()


class Camera(Generic[Settings]):
    """``name`` is empty for the only camera of a node.

    :meth:`offer` is called at configure and when the model changes, :meth:`listen` at activate;
    :meth:`mute` and :meth:`close` undo them.
    """

    def __init__(self, name: str, graph: Graph, log: NodeLog) -> None:
        self.name = name
        self.frame_log = FrameLog()
        self.input: CameraInput | None = None
        self._graph = graph
        self._log = log
        self._topics = OutputTopics(graph, name)
        self._groups: list[OutputGroup[Settings]] = []
        self._refinement: DepthRefinement | None = None
        self._limit = RateLimit()
        self._info: CameraInfo | None = None  # while muted
        self._gives: frozenset[str] = frozenset()

    def offer(
        self,
        groups: Sequence[type[OutputGroup[Settings]]],
        specs: Sequence[TopicSpec],
        card: ModelCard,
        settings: Settings,
    ) -> None:
        """Have publishers for ``specs``, filled by fresh groups."""
        self._gives = frozenset(card.outputs)
        self.keep(specs, settings)
        self._groups = [group(self._topics, card, self._log) for group in groups]

    def keep(self, specs: Sequence[TopicSpec], settings: Settings) -> None:
        """Have publishers for ``specs``, filled by the groups there are."""
        self._topics.keep(specs, settings.output_reliability, settings.jpeg_quality)

    def listen(self, settings: Settings, on_image: Callable[[str, AnyImage], None]) -> None:
        """Subscribe, also to what the scale comes from.

        ``on_image`` gets the camera's name and each message.
        """
        self._refinement = DepthRefinement(self._graph, self._log, self.name, settings.scale_source)
        self.input = CameraInput(
            self._graph,
            self.name,
            settings,
            lambda message: on_image(self.name, message),
            self._info,
        )

    def mute(self) -> None:
        """Unsubscribe; a frame that is being answered is still scaled as the others were."""
        if self.input is not None:
            self._info = self.input.info
            self.input.close()
            self.input = None
        if self._refinement is not None:
            self._refinement.close()

    def close(self) -> None:
        """Unsubscribe and close the publishers."""
        self.mute()
        self._groups = []
        self._topics.close()

    def admits(self, settings: Settings) -> bool:
        """Whether an image that comes now is within ``max_rate_hz``; counts those that are not."""
        self.frame_log.came()
        if self._limit.admits(settings.max_rate_hz):
            return True
        self.frame_log.over_rate += 1
        return False

    def wanted(self, settings: Settings) -> frozenset[str]:
        """The entries of a Prediction that somebody subscribes to, and what those need."""
        entries = self._topics.wanted()
        by_floor = settings.scale_source == "camera_height"
        if by_floor and "depth" in entries and "labels" in self._gives:
            return entries | {"labels"}  # they tell the floor from a table
        return entries

    def frame(self, message: AnyImage, settings: Settings) -> CameraFrame | None:
        """Convert an image message; ``None`` if the camera was muted meanwhile, or has just
        begun and waits for a calibration that is required.

        :raises InputError: if it cannot be used.
        """
        source = self.input
        if source is None:
            return None
        if settings.require_camera_info and source.info is None:
            if self.frame_log.seconds_active < _INFO_PATIENCE_S:
                return None
            raise InputError(
                f"no camera_info came on {source.info_topic}, which require_camera_info asks for: "
                "publish it, or remap camera_info"
            )
        frame_id = settings.frame_id.replace("{camera}", self.name)
        image = source.frame(message, settings.camera_matrix, frame_id)
        if image is None:
            return None
        if settings.require_camera_info and image.info is None:
            raise InputError(
                f"camera_info is not usable, and require_camera_info is set: {image.info_problem}"
            )
        assumed = settings.default_hfov_deg if image.info is None else None
        camera = image.frame.intrinsics
        has_lens = camera is not None and camera.lens is not None
        if self.frame_log.calibration(assumed, image.info_problem, image.info_doubt, has_lens):
            problem = image.info_doubt or f"camera_info is not used: {image.info_problem}"
            self._log.warning(
                f"{self._label()}{problem}", topic="camera_info", period_s=_LOG_PERIOD_S
            )
        if has_lens:
            self._log.warn_once(
                f"{self._label()}images on {source.topic} are not rectified: ~/points follows the "
                "lens, and ~/depth/camera_info carries its D. Nodes that ignore D, as "
                "depth_image_proc, need a rectified image; set camera_matrix to P if this is one"
            )
        bits = source.reader.bits
        self.frame_log.bits_doubt = ""
        if bits.frames >= _BITS_FRAMES and bits.doubt:
            self.frame_log.bits_doubt = (
                f"16-bit images on {source.topic} only use {bits.doubt} bits and are nearly black: "
                "set significant_bits to the camera's (10 or 12), or to 16 if the scene is that "
                "dark"
            )
            self._log.warn_once(f"{self._label()}{self.frame_log.bits_doubt}")
        return image

    def refined(self, frame: Frame, prediction: Prediction, settings: Settings) -> Prediction:
        """The prediction with its depth scaled, smoothed and limited as the settings say."""
        refinement = self._refinement
        if refinement is None or prediction.depth is None:
            return prediction
        answer = refinement.apply(frame, prediction, settings)
        self.frame_log.scale_problem = refinement.problem
        return answer

    def publish(self, answer: Answer, settings: Settings) -> None:
        """Publish one frame's outputs; called by the worker thread."""
        most = settings.max_output_side if settings.output_size == "input" else None
        if self.frame_log.size(answer.frame, answer.prediction, most):
            self._log.warn_once(
                f"{self._label()}the outputs are {self.frame_log.output_size}: raise it if you "
                "need every pixel"
            )
        for group in self._groups:
            group.publish(answer, settings)

    def look(self) -> None:
        """Find out why nothing comes, and say it; called now and then by the executor's thread."""
        if self.input is None:
            return
        self.input.look_for_latched_info()
        if self.frame_log.seconds_silent < (_PATIENCE_S if self.frame_log.has_image else 0.0):
            self.frame_log.silence = ""
            return
        reason, is_certain = self.input.silence()
        if not is_certain and self.frame_log.seconds_silent < _PATIENCE_S:
            return
        self.frame_log.silence = reason
        # A camera of the wrong kind that starts after "no publisher" was said is news.
        topic = f"silence {self.name} {is_certain}"
        self._log.warning(f"{self._label()}{reason}", topic=topic, period_s=_REMINDER_S)

    def announce(self, settings: Settings, now: Time) -> None:
        """Publish what does not belong to a frame."""
        for group in self._groups:
            group.announce(settings, now)

    def failed(self, error: Exception) -> None:
        """Count and log a frame that could not be answered."""
        reason = self.frame_log.failed(error)
        self._log.error(
            f"{self._label()}frame not answered: {reason}", topic="frame", period_s=_LOG_PERIOD_S
        )

    def _label(self) -> str:
        return f"{self.name}: " if self.name else ""


def limited(depth: DepthMap, min_m: float, max_m: float) -> DepthMap:
    """Metric depth with all outside ``min_m`` to ``max_m`` invalid; other kinds as they are.

    The map itself where nothing is outside, else a fresh one.
    """
    if depth.kind is not DepthKind.METRIC:
        return depth
    values_hw = depth.values_hw
    low, high = float(np.float32(min_m)), float(np.float32(max_m))
    # A NaN makes both comparisons false. Most frames end here, in a third of the time.
    if values_hw.min() >= low and values_hw.max() <= high:
        return depth
    result_hw = np.full_like(values_hw, np.nan)
    cv2.copyTo(values_hw, cv2.inRange(values_hw, low, high), result_hw)
    return replace(depth, values_hw=result_hw)
