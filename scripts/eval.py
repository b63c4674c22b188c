"""The same as `dasnet evaluate`, under the original repository's name."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
