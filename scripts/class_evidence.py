"""Run `python3 -m training.evaluation.class_separation`."""

import sys

from training.evaluation.class_separation import main

if __name__ == "__main__":
    sys.exit(main())
