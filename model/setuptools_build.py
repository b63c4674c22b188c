"""The build step of `pip install`: build the native engine where a C++ compiler is installed."""

import sys
from pathlib import Path

from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Copies the Python files, then builds the native library into the wheel."""

    def run(self) -> None:
        """Run the build; without a compiler, warn and leave the native engine out."""
        super().run()
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from model.native import library

        folder = library.LIBRARIES
        if not self.editable_mode:
            folder = Path(self.build_lib) / folder.relative_to(Path(__file__).parents[1])
        try:
            library.build_best(folder)
        except library.NativeError as error:
            self.warn(f"the native engine is not built: {error}")
