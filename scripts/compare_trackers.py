"""Run `python3 -m training.evaluation.tracker_comparison`."""

import sys

from training.evaluation.tracker_comparison import main

if __name__ == "__main__":
    sys.exit(main())
