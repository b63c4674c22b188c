"""Text and JSON files of labels, with or without byte order marks; what cannot be read is named in plain words."""

import codecs
import json
from pathlib import Path
from typing import Any, TypeGuard

from training.datasets.recording import DataError


def read_text(path: Path) -> str:
    """Return a text file's content, in UTF-8 or with a byte order mark.  Raise DataError."""
    try:
        content = path.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text; expected UTF-8") from error


def read_json(path: Path, expected: str) -> Any:
    """Return a JSON file's content.  Raise DataError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"labels {path}: cannot be read ({error.strerror})") from error
    return parsed_json(path, content, expected)


def parsed_json(path: Path, content: bytes, expected: str) -> Any:
    """Raise DataError naming the place where it stops being JSON."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"labels {path}: is not JSON ({where}); expected {expected}") from error
    except (ValueError, RecursionError) as error:  # no text, numbers of thousands of digits, endless nesting
        raise DataError(f"labels {path}: is not JSON; expected {expected}") from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number that can be a coordinate; JSON knows NaN, infinity and numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def shortened(value: object) -> str:
    """Return the value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
