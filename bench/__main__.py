"""Run benches by name, all of them where none is named: `./run bench [NAME ...] [--json FILE]`."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench import beat, read
from bench.measure import THEIRS, Figure, machine, pin, table

BENCHES: dict[str, Callable[[], list[Figure]]] = {"beat": beat.run, "read": read.run}


def main() -> None:
    """Run the benches and print their figures."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - BENCHES.keys())
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    pin(os.getpid(), THEIRS)
    figures: list[Figure] = []
    for name in arguments.names or BENCHES:
        sys.stderr.write(f"bench: {name}\n")
        figures += BENCHES[name]()
    sys.stdout.write(table(figures) + "\n")
    if arguments.json:
        told = {"machine": machine(), "figures": [one.as_json() for one in figures]}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
