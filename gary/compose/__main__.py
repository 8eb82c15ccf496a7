"""``python -m gary.compose reference`` prints the reference of Compose keys (docs/reference/compose.md)."""

from __future__ import annotations

import sys

from gary.compose.reference import reference


def main(arguments: list[str]) -> int:
    """Print what is asked for; 2 if that is nothing known."""
    if arguments != ["reference"]:
        print("usage: python -m gary.compose reference", file=sys.stderr)
        return 2
    sys.stdout.write(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
