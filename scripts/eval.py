"""Evaluate a checkpoint as the original's users do: `python3 scripts/eval.py --model dasnet --checkpoint best.pth
--data FOLDER --split test`; it is `dasnet evaluate`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
