"""Run `python3 -m training.evaluation.calibration`."""

import sys

from training.evaluation.calibration import main

if __name__ == "__main__":
    sys.exit(main())
