"""Run `python3 -m training.evaluation.model_comparison`."""

import sys

from training.evaluation.model_comparison import main

if __name__ == "__main__":
    sys.exit(main())
