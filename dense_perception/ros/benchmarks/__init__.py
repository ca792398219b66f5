"""Benchmarks of the nodes: real processes in a ROS domain of their own."""
