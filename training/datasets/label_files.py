"""Readers of text and JSON label files, with or without byte order marks."""

import codecs
import json
from pathlib import Path
from typing import Any, TypeGuard

from training.datasets.recording import DataError

JSON_FILES = "*.[jJ][sS][oO][nN]"  # a pattern of Path.glob


def read_text(path: Path) -> str:
    """Return a text file's content, in UTF-8 or with a byte order mark; raise DataError."""
    try:
        content = path.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text; expected UTF-8") from error


def read_json(path: Path, expected: str) -> Any:
    """Return a JSON file's content; raise DataError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"labels {path}: cannot be read ({error.strerror})") from error
    return parsed_json(path, content, expected)


def parsed_json(path: Path, content: bytes, expected: str) -> Any:
    """Return parsed JSON; raise DataError naming the place of the first syntax error."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"labels {path}: is not JSON ({where}); expected {expected}") from error
    except (ValueError, RecursionError) as error:  # not text, numbers of thousands of digits, deep nesting
        raise DataError(f"labels {path}: is not JSON; expected {expected}") from error


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number of a coordinate's range; JSON allows NaN and numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def shortened(value: object) -> str:
    """Return a value's representation, shortened for messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
