"""Whether the native engine runs here."""

import pytest

from model.native import library as native_library

needs_native = pytest.mark.skipif(
    not native_library.usable_variants(), reason="the processor has neither AVX2 nor AVX-512"
)
