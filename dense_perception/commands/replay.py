"""``dense-perception replay BAG``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.core.errors import InputError

if TYPE_CHECKING:
    from dense_perception.ros.replay import ReplayReport

HELP = "publish a rosbag2 bag on its topics at its own times"
EXAMPLES = """examples:
  dense-perception replay my_bag
  dense-perception replay my_bag --rate 0.5 --loop --clock
  dense-perception replay my_bag --topics /camera/image_raw --remap /camera/image_raw:=/image

The exit code is 1 if the bag is damaged: what could be read was published."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="a rosbag2 folder, or an .mcap or .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 is real time")
    parser.add_argument("--loop", action="store_true", help="start again at the end")
    parser.add_argument("--clock", action="store_true", help="publish the bag's time on /clock")
    parser.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="only these")
    parser.add_argument(
        "--remap", nargs="+", default=[], metavar="FROM:=TO", help="publish on another topic"
    )
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="wait before it")
    parser.add_argument(
        "--wait-for-subscribers",
        type=float,
        default=0.0,
        metavar="S",
        help="wait up to this many seconds until every topic has a subscriber",
    )
    parser.add_argument(
        "--subscribers", type=int, default=1, metavar="N", help="how many to wait for on each topic"
    )
    parser.add_argument("--json", action="store_true", help="print what happened as JSON")


def main(args: argparse.Namespace) -> int:
    """Returns 0, 1 for a damaged bag, 130 when interrupted."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from dense_perception.core.machine import keep_freed_memory
    from dense_perception.media.bag_reader import BagReader
    from dense_perception.ros.processes import interrupt_on_signals
    from dense_perception.ros.replay import Replay, ReplayOptions, ReplayReport

    options = ReplayOptions(
        rate=args.rate,
        loop=args.loop,
        clock=args.clock,
        topics=tuple(args.topics),
        remap=parse_remaps(args.remap),
        delay_s=args.delay,
        wait_for_subscribers_s=args.wait_for_subscribers,
        subscribers=args.subscribers,
    )
    keep_freed_memory()
    interrupt_on_signals()
    with BagReader(args.bag) as bag:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("bag_replay", start_parameter_services=False)
        report, interrupted = ReplayReport(), False
        try:
            replay = Replay(node, bag, options)
            report = replay.report
            with _progress(replay.message_count, args.loop or args.json) as on_message:
                replay.run(on_message=on_message)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    _print(report, args.json)
    return 130 if interrupted else int(bool(report.problems))


def parse_remaps(texts: list[str]) -> dict[str, str]:
    """``FROM:=TO`` pairs.

    :raises InputError: for anything else.
    """
    remaps = {}
    for text in texts:
        source, separator, target = text.partition(":=")
        if not (source and separator and target):
            raise InputError(f"--remap got {text!r}, expected FROM:=TO")
        remaps[source] = target
    return remaps


@contextmanager
def _progress(total: int, silent: bool) -> Iterator[Any]:
    from tqdm import tqdm

    with tqdm(total=total, unit="msg", disable=True if silent else None) as bar:
        yield bar.update


def _print(report: ReplayReport, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report), indent=2))
    else:
        for topic, count in report.published.items():
            print(f"{topic}: {count} messages")
        print(f"{report.seconds:.2f} s, at most {report.latest_ms:.1f} ms late")
    for topic, reason in report.skipped.items():
        print(f"skipped {topic}: {reason}", file=sys.stderr)
    if report.unsubscribed:
        print(f"nobody subscribed to {', '.join(report.unsubscribed)}", file=sys.stderr)
    for problem in report.problems:
        print(f"what could be read was played: {problem}", file=sys.stderr)
