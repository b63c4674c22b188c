"""Run `python3 -m training.evaluation.label_margins`."""

import sys

from training.evaluation.label_margins import main

if __name__ == "__main__":
    sys.exit(main())
