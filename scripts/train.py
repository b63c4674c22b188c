"""`python3 scripts/train.py CONFIG.yaml [--out DIR] [--resume] [--set KEY=VALUE]`, the same as `dasnet train`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.runtime.interruption import end_quietly

if __name__ == "__main__":
    end_quietly()
    from training.train import main

    sys.exit(main())
