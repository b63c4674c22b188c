"""Run `python3 -m training.evaluation.sensor_shift`."""

import sys

from training.evaluation.sensor_shift import main

if __name__ == "__main__":
    sys.exit(main())
