"""``instance_node``: images to things, each with its box, class, score and pixels."""

from __future__ import annotations

from dense_perception.ros.processes import end_at_once_on_interrupt, load_opencv


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit code is 0 then, 1 for wrong parameters."""
    end_at_once_on_interrupt()  # until rclpy takes over; so all of it is imported after this
    load_opencv("instance_node")

    from dense_perception.ros.instance_outputs import InstanceOutputs
    from dense_perception.ros.map_outputs import SegmentationOutputs
    from dense_perception.ros.node_process import run_node
    from dense_perception.ros.params import InstanceParameters
    from dense_perception.ros.perception_node import PerceptionNode

    return run_node(
        "instance_node",
        InstanceParameters,
        lambda: PerceptionNode(
            "instance_node",
            InstanceParameters,
            (InstanceOutputs, SegmentationOutputs),
            needs="instances",
        ),
        arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
