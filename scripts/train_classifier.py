"""The same as `python3 -m training.classifier.train`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.classifier.train import main

if __name__ == "__main__":
    sys.exit(main())
