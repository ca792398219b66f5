"""``multitask_node``: everything a model gives, from one pass: depth, labels, normals and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dense_perception.ros.processes import end_at_once_on_interrupt, load_opencv

if TYPE_CHECKING:
    from dense_perception.ros.outputs import OutputGroup
    from dense_perception.ros.params import MultitaskParameters


def output_groups() -> tuple[type[OutputGroup[MultitaskParameters]], ...]:
    """What the node publishes, in this order for each frame."""
    from dense_perception.ros.instance_outputs import InstanceOutputs
    from dense_perception.ros.map_outputs import (
        LabelledPointOutputs,
        MapOutputs,
        SegmentationOutputs,
    )
    from dense_perception.ros.outputs import DepthOutputs, DepthPreview

    return (
        *(DepthOutputs, SegmentationOutputs, LabelledPointOutputs),
        *(InstanceOutputs, MapOutputs, DepthPreview),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit code is 0 then, 1 for wrong parameters."""
    end_at_once_on_interrupt()  # until rclpy takes over; so all of it is imported after this
    load_opencv("multitask_node")

    from dense_perception.ros.node_process import run_node
    from dense_perception.ros.params import MultitaskParameters
    from dense_perception.ros.perception_node import PerceptionNode

    return run_node(
        "multitask_node",
        MultitaskParameters,
        lambda: PerceptionNode(
            "multitask_node",
            MultitaskParameters,
            output_groups(),
        ),
        arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
