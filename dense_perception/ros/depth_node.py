"""``depth_node``: images to metric depth, a cloud and a colourised preview."""

from __future__ import annotations

from dense_perception.ros.processes import end_at_once_on_interrupt, load_opencv


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted; the exit code is 0 then, 1 for wrong parameters."""
    end_at_once_on_interrupt()  # until rclpy takes over; so all of it is imported after this
    load_opencv("depth_node")

    from dense_perception.ros.node_process import run_node
    from dense_perception.ros.outputs import DepthOutputs, DepthPreview, PointOutputs
    from dense_perception.ros.params import DepthParameters
    from dense_perception.ros.perception_node import PerceptionNode

    return run_node(
        "depth_node",
        DepthParameters,
        lambda: PerceptionNode(
            "depth_node",
            DepthParameters,
            (DepthOutputs, PointOutputs, DepthPreview),
            needs="depth",
        ),
        arguments,
    )


if __name__ == "__main__":
    raise SystemExit(main())
