"""Run `python3 -m training.evaluation.failures`."""

import sys

from training.evaluation.failures import main

if __name__ == "__main__":
    sys.exit(main())
