"""``dense-perception replay BAG``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from dense_perception.commands.output import complain, show
from dense_perception.core.errors import InputError
from dense_perception.core.printable import counted

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
    parser.add_argument(
        "--require-subscribers",
        action="store_true",
        help="play nothing and fail if a topic has no subscriber by then",
    )
    parser.add_argument("--json", action="store_true", help="print what happened as JSON")


def main(options: argparse.Namespace) -> int:
    """Returns 0, 1 for a damaged bag, 130 when interrupted."""
    from dense_perception.ros.replay import ReplayOptions, replay_bag

    wanted = ReplayOptions(
        rate=options.rate,
        loop=options.loop,
        clock=options.clock,
        topics=tuple(options.topics),
        remap=parse_remaps(options.remap),
        delay_s=options.delay,
        wait_for_subscribers_s=options.wait_for_subscribers,
        subscribers=options.subscribers,
        require_subscribers=options.require_subscribers,
    )
    with tqdm(unit="msg", disable=True if options.loop or options.json else None) as bar:

        def on_message(total: int) -> None:
            bar.total = total
            bar.update()

        report = replay_bag(options.bag, wanted, on_message)
    show(report, table, options.json)
    for topic, reason in report.skipped.items():
        complain(f"skipped {topic}: {reason}")
    if report.unsubscribed:
        complain(f"nobody subscribed to {', '.join(report.unsubscribed)}")
    for problem in report.problems:
        complain(f"what could be read was played: {problem}")
    return 130 if report.interrupted else int(bool(report.problems))


def table(report: ReplayReport) -> str:
    """What was published, a topic a line."""
    lines = [f"{topic}: {counted(count, 'message')}" for topic, count in report.published.items()]
    return "\n".join([*lines, f"{report.seconds:.2f} s, at most {report.latest_ms:.1f} ms late"])


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
