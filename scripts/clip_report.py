"""Run `python3 -m training.evaluation.clip_report`."""

import sys

from training.evaluation.clip_report import main

if __name__ == "__main__":
    sys.exit(main())
