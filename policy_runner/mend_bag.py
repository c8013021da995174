"""Make a bag that was cut short, by a kill or a full disk, one that every tool reads.

    python -m policy_runner.mend_bag CUT NEW

`policy_runner.replay` reads cut bags as they are; others need the index and the metadata that a cut bag lacks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rosbags.rosbag2 import WriterError

from policy_runner.bag import BagError
from policy_runner.bag_writer import copy_bag


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy what there is of a bag into a new one; return 1 where that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m policy_runner.mend_bag",
        description="Copy all whole messages of a bag that was cut short into a new one. Exit code 1: refused.",
    )
    parser.add_argument("cut", type=Path, help="folder of the bag, or its .mcap file")
    parser.add_argument("new", type=Path, help="folder for the new bag; it must not exist")
    options = parser.parse_args(arguments)
    try:
        count = copy_bag(options.cut, options.new)
    except (BagError, WriterError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(f"{count} messages in {options.new}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
