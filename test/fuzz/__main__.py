"""``python -m test.fuzz WHAT``: hostile input, kills and long runs, with the figures they give."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dense_perception.commands.output import print_json, show
from dense_perception.ros.processes import interrupt_on_signals
from test.fuzz.worker import FuzzReport, fuzz, table_of

COUNTS = {"messages": 100_000, "dds": 10_000, "bags": 10_000, "cards": 2_000, "images": 5_000}
EXAMPLES = """\
examples:
  python -m test.fuzz all
  python -m test.fuzz bags --seed 7 --count 500 --json
  python -m test.fuzz images --seed 1 --start 4711 --count 1 --verbose   (one input again)
  python -m test.fuzz kills --verb run --kills 20
  python -m test.fuzz segments
  python -m test.fuzz soak --minutes 60

The exit code is 1 if a promise was broken: a crash, over 2 s of processor time for one input, a
traceback, an exception that is not the package's own, over 300 MB more memory than at the start.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m test.fuzz",
        description="Try hostile input, kills and long runs on the package.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, text in {
        "messages": "camera messages, through all that a node does with them, in process",
        "dds": "messages over DDS to a live node",
        "bags": "bags, MCAP and SQLite, cut and forged",
        "cards": "model cards and ONNX files",
        "images": "image files of every format",
        "all": "all of these, one after the other",
    }.items():
        below = _kind(kinds, name, text)
        below.add_argument("--count", type=int, help="inputs (default: the full number)")
        below.add_argument("--start", type=int, default=0, help="number of the first input")
        below.add_argument("--verbose", action="store_true", help="a line for each input")
    below = _kind(kinds, "kills", "SIGKILL commands at random moments, and start them again")
    below.add_argument("--verb", action="append", help="run, run-bag, train... (default: all)")
    below.add_argument("--kills", type=int, default=20, help="for each command")
    below = _kind(kinds, "segments", "SIGKILL a node again and again in a small /dev/shm")
    below.add_argument("--kills", type=int, default=20)
    below.add_argument("--megabytes", type=int, default=700, help="size of /dev/shm")
    below = _kind(kinds, "soak", "a node at 30 Hz while everything changes")
    below.add_argument("--minutes", type=float, default=60.0)
    below.add_argument("--warm-up", type=float, default=3.0, metavar="MINUTES")
    below.add_argument("--model", help="a model's file (default: the shipped int8 depth model)")
    below.add_argument("--backend", help="(default: openvino where it is installed)")
    below.add_argument("--log", type=Path, help="file for the node's output")
    options = parser.parse_args(arguments)
    interrupt_on_signals()
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "kills": _kills,
        "segments": _segments,
        "soak": _soak,
    }
    return commands.get(options.what, _inputs)(options)


def _kind(kinds: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    below: argparse.ArgumentParser = kinds.add_parser(name, help=text, description=text)
    below.add_argument("--seed", type=int, default=1)
    below.add_argument("--json", action="store_true", help="print the figures as JSON")
    below.add_argument("--quiet", action="store_true", help="no progress bar")
    return below


def _inputs(options: argparse.Namespace) -> int:
    reports: list[FuzzReport] = []
    quiet = options.quiet or options.verbose
    for name in COUNTS if options.what == "all" else [options.what]:
        count = options.count or COUNTS[name]
        if name == "dds":
            from test.fuzz.dds import fuzz_dds

            reports.append(fuzz_dds(seed=options.seed, count=count, quiet=quiet))
        else:
            reports.append(
                fuzz(
                    name,
                    seed=options.seed,
                    count=count,
                    start=options.start,
                    quiet=quiet,
                    verbose=options.verbose,
                )
            )
    show(reports, table_of, options.json)
    return int(any(report.findings for report in reports))


def _kills(options: argparse.Namespace) -> int:
    from test.fuzz.kills import VERBS, kill_all, table_of_kills

    verbs = options.verb or list(VERBS)
    reports = kill_all(verbs, kills=options.kills, seed=options.seed, quiet=options.quiet)
    show(reports, table_of_kills, options.json)
    return int(any(report.problems for report in reports))


def _segments(options: argparse.Namespace) -> int:
    from test.fuzz.segments import kill_nodes, table_of_segments

    report = kill_nodes(kills=options.kills, megabytes=options.megabytes, quiet=options.quiet)
    show(report, table_of_segments, options.json)
    return int(bool(report.problems))


def _soak(options: argparse.Namespace) -> int:
    from test.fuzz.soak import BACKEND, MODEL, soak, table_of_soak

    report = soak(
        minutes=options.minutes,
        warm_up_minutes=options.warm_up,
        seed=options.seed,
        model=options.model or str(MODEL),
        backend=options.backend or BACKEND,
        log=options.log,
        quiet=options.quiet,
    )
    if options.json:
        print_json(report.summary(), indent=2)
    else:
        print(table_of_soak(report))
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
