"""The command line: python -m upstream --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .generate import generate


def main() -> int:
    """Write into a checkout; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m upstream",
        description="Write SymmMiner, SymmSynthesizer, SymmLoss and the four losses into a "
        "checkout of pytorch-metric-learning 2.x: modules, exports, tests and "
        "documentation. This replaces the files of an earlier call.",
    )
    parser.add_argument("checkout", type=Path, help="folder of the checkout")
    parser.add_argument(
        "--only",
        choices=["miner"],
        help="the first contribution: SymmMiner and SymmSynthesizer, nothing else",
    )
    arguments = parser.parse_args()
    try:
        written = generate(arguments.checkout, arguments.only)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path) for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
