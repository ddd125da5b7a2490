"""``python -m vfiomig``: the same as the command ``vfiomig``."""

from __future__ import annotations

from vfiomig.frontends.cli import main

if __name__ == "__main__":
    main()
