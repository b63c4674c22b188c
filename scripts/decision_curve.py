"""Run `python3 -m training.evaluation.threshold_curve`."""

import sys

from training.evaluation.threshold_curve import main

if __name__ == "__main__":
    sys.exit(main())
