"""Run `python3 -m training.evaluation.cross_band`."""

import sys

from training.evaluation.cross_band import main

if __name__ == "__main__":
    sys.exit(main())
