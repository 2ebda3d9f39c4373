"""``python -m scjepa``: the command line."""

from __future__ import annotations

import sys

import matplotlib

from scjepa.demo import main

if __name__ == "__main__":
    matplotlib.use("agg")  # figures go to files: a broken or absent display is no obstacle
    sys.exit(main())
