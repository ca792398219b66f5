"""The processor time of each output of multitask_node, beyond the model.

A camera, the node and a listener in three processes. The node runs a model whose one answer was
recorded beforehand, so what is left is what the node itself does: receiving, converting, enlarging,
making and sending messages. The processor time of all its threads is divided by the frames, with
nobody subscribed, with each output alone, and with all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dense_perception.backends.base import promised
from dense_perception.benchmarks.session import Listener, StreamOptions, open_session
from dense_perception.benchmarks.source import images
from dense_perception.core.card import METADATA_KEY, ModelCard
from dense_perception.core.errors import InputError
from dense_perception.ros.multitask_node import output_groups
from dense_perception.ros.params import MultitaskParameters
from dense_perception.ros.processes import ChildProcess, cpu_s
from dense_perception.ros.topics import TopicSpec, message_type
from dense_perception.runtime.perceiver import Perceiver

_NODE = "/multitask_node"
_SETTLE_S = 1.5


@dataclass(frozen=True)
class OutputCost:
    """``cpu_ms``: of all threads of the node, a frame; ``beyond_ms``: more than with nobody
    subscribed, so the picture's conversion and the enlarging of what the output needs are in it.
    """

    output: str
    cpu_ms: float
    beyond_ms: float
    answered_percent: float


@dataclass(frozen=True)
class OutputsResult:
    model: str
    stream: str
    seconds_each: float
    nobody_ms: float
    outputs: list[OutputCost]
    all_outputs: OutputCost


def measure_outputs(options: StreamOptions) -> OutputsResult:
    """Start the processes, measure each set of subscriptions for ``--seconds``, and end them.

    :raises DensePerceptionError: if the model cannot be recorded or a process does not come up.
    """
    with open_session(options.transport_profile) as (session, listener):
        path = session.folder / "recorded.onnx"
        card = record_answer(options.model, path, images(options.width, options.height)[0])
        fixed = [f"model:={path}", "backend:=onnxruntime", "threads:=1"]
        node = session.node("multitask_node", [*fixed, *options.parameters])
        specs = topics_of(card)
        runs = [[], *([spec] for spec in specs), list(specs)]
        session.source(options, len(runs) * (options.seconds + _SETTLE_S) + 60)
        costs = [_measure(options, listener, node, subscribed) for subscribed in runs]
    nobody_ms = costs[0][0]
    names = ["nobody", *(spec.name for spec in specs), "all"]
    outputs = [
        OutputCost(name, cpu_ms, cpu_ms - nobody_ms, answered)
        for name, (cpu_ms, answered) in zip(names, costs, strict=True)
    ]
    return OutputsResult(
        model=card.name,
        stream=str(options),
        seconds_each=options.seconds,
        nobody_ms=nobody_ms,
        outputs=outputs[1:-1],
        all_outputs=outputs[-1],
    )


def topics_of(card: ModelCard) -> tuple[TopicSpec, ...]:
    """What multitask_node publishes for each frame with its default parameters."""
    specs = (spec for group in output_groups() for spec in group.specs(card, MultitaskParameters()))
    return tuple(spec for spec in specs if spec.made_from)


def _measure(
    options: StreamOptions, listener: Listener, node: ChildProcess, specs: list[TopicSpec]
) -> tuple[float, float]:
    """Milliseconds a frame with these subscriptions, and the least percentage that was answered."""
    listener.arrivals.clear()
    subscriptions = [
        listener.note(spec.name, message_type(spec), f"{_NODE}/{spec.name}") for spec in specs
    ]
    listener.wait_for(
        lambda: all(listener.arrivals[spec.name] for spec in specs), "the first answers"
    )
    listener.spin(min(_SETTLE_S, options.seconds))
    begun_s, cpu_begun_s, begun_ns = time.monotonic(), cpu_s(node.pid), time.time_ns()
    label = "nobody" if not specs else specs[0].name if len(specs) == 1 else "all outputs"
    listener.spin(options.seconds, label)
    cpu_used_s, frames = cpu_s(node.pid) - cpu_begun_s, options.rate * (time.monotonic() - begun_s)
    ended_ns = time.time_ns()
    for subscription in subscriptions:
        listener.node.destroy_subscription(subscription)
    answered = [
        sum(
            begun_ns <= received < ended_ns for received, _ in listener.arrivals[spec.name].values()
        )
        for spec in specs
    ]
    return 1e3 * cpu_used_s / frames, 100 * min(answered, default=0) / frames


def record_answer(model: str, path: Path, rgb_hwc: np.ndarray) -> ModelCard:
    """Write an ONNX file that gives ``model``'s answer to ``rgb_hwc`` whatever it is shown.

    Its card is the model's, so a node treats it alike. Returns the card.

    :raises InputError: if the model's answer cannot be had at the network's size.
    :raises DensePerceptionError: if the model does not load.
    """
    with Perceiver.load(model, backend="onnxruntime") as perceiver:
        card = perceiver.card
        height, width = card.input.height, card.input.width
        feeds = {"image": np.ascontiguousarray(rgb_hwc[None, :height, :width])}
        if feeds["image"].shape != (1, height, width, 3):
            raise InputError(
                f"the picture is {rgb_hwc.shape[1]}x{rgb_hwc.shape[0]}, expected at least the "
                f"network's {width}x{height}: raise --width and --height"
            )
        if card.input.focal:
            feeds["focal_px"] = np.array([width], np.float32)
        names = {spec.name for spec in promised(card)[1]}
        answer = perceiver.backend.infer(feeds, names)
        _write(path, card, {name: np.array(array) for name, array in answer.items()})
    return card


def _write(path: Path, card: ModelCard, answer: dict[str, np.ndarray]) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    height, width = card.input.height, card.input.width
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])]
    if card.input.focal:
        inputs.append(helper.make_tensor_value_info("focal_px", TensorProto.FLOAT, [1]))
    outputs, nodes, constants = [], [], []
    for name, array in answer.items():
        constants.append(numpy_helper.from_array(array, f"recorded_{name}"))
        nodes.append(helper.make_node("Identity", [f"recorded_{name}"], [name]))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        outputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    graph = helper.make_graph(nodes, "recorded", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    # Nothing of the original's parity or files holds for this graph.
    bare = replace(card, parity={}, files={})
    helper.set_model_props(model, {METADATA_KEY: bare.embedded_json()})
    onnx.save(model, str(path))
