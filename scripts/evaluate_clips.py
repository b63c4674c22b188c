"""The same as `dasnet evaluate-clips`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate-clips")
    main()
