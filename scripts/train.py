"""The same as `dasnet train`: `python3 scripts/train.py CONFIG.yaml [--out DIR] [--resume] [--set KEY=VALUE]`."""

import sys

from pipeline.runtime.interruption import end_quietly

if __name__ == "__main__":
    end_quietly()
    from training.train import main

    sys.exit(main())
