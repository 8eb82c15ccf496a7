"""``python -m simulations``: run whole clusters in virtual time and say how it went."""

from __future__ import annotations

import sys

from simulations.commands import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
