"""What is sent is what arrives; anything else is rejected with a WireError and nothing worse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import SURE_UAV, UNSURE, frame

from pipeline.errors import WireError
from pipeline.transport.payloads import detections_of, frame_message, frame_of, result_message
from pipeline.transport.wire import Credit, CreditRequest, FrameHeader, Result, Stamps, decode, encode
from pipeline.types import Band, Frame, FrameRef


@given(st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_frames_arrive_as_they_were_sent(width: int, height: int, grey: bool):
    shape = (height, width) if grey else (height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    ref = FrameRef("north", "s", 7, 1.5, 123, 456, 789)
    header, buffers = decode(frame_message(Frame(ref, Band.INFRARED, pixels), Stamps(decode_ns=5), True))
    assert isinstance(header, FrameHeader)
    arrived = frame_of(header, buffers)
    assert arrived.ref == ref and arrived.band is Band.INFRARED and (arrived.pixels == pixels).all()


def test_results_arrive_as_they_were_sent():
    sent = frame(3, [(50, 60, 8, SURE_UAV), (200, 100, 20, UNSURE)], shift=(0.5, -1.0))
    result, buffers = decode(result_message(sent, Stamps(), b"jpeg"))
    assert isinstance(result, Result) and bytes(buffers[0]) == b"jpeg"
    got = detections_of(result)
    for name in ("xyxy", "score", "area_px", "centroid", "class_scores"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))
    assert (got.ref, got.masks, got.camera_shift_px) == (sent.ref, sent.masks, sent.camera_shift_px)
    empty = detections_of(decode(result_message(frame(4, []), Stamps(), b""))[0])  # type: ignore[arg-type]
    assert len(empty) == 0


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_random_bytes_are_rejected(parts: list[bytes]):
    with pytest.raises(WireError):
        decode(parts)


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_random_bytes_behind_a_right_prefix_are_rejected(body: bytes):
    prefix = encode(CreditRequest("a", "b", True))[0]
    with pytest.raises(WireError):
        decode([prefix, body])


def test_another_version_is_rejected():
    parts = encode(Credit("w", "s"))
    with pytest.raises(WireError, match="version da01: must be da03"):
        decode([bytes([0xDA, 1]), *parts[1:]])


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4), (1 << 20, 1 << 20, 3), (-2, -2), (4, 4, 3)])
def test_frames_whose_pixels_do_not_fit_their_shape_are_rejected(shape: tuple[int, ...]):
    header = FrameHeader(FrameRef("a", "s", 0, 0.0, 0, 0), Band.VISIBLE, shape, Stamps(), True)
    with pytest.raises(WireError, match="frame of shape"):
        frame_of(header, [memoryview(b"x" * 16)])


def test_results_whose_numbers_do_not_fit_are_rejected():
    result, _ = decode(result_message(frame(3, [(50, 60, 8, SURE_UAV)]), Stamps(), b""))
    assert isinstance(result, Result)
    result.boxes = result.boxes[:-4]
    with pytest.raises(WireError, match="result of"):
        detections_of(result)
