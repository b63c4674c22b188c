"""Frames and detections <-> messages, with their pixels, boxes and masks.

Whatever is received is validated here: values that could not be stored or computed with raise WireError.
"""

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WireError
from pipeline.imaging.frame_size import MAX_SIDE_PX
from pipeline.transport.wire import FrameHeader, Result, Stamps, encode
from pipeline.types import UAV, Detections, Frame

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_ASPECT = 32  # a thinner frame would be padded to many times its size


def frame_message(frame: Frame, stamps: Stamps, live: bool, *, jpeg: bool = False) -> list[Any]:
    """Return a frame's message; `jpeg`: compress the pixels, for a thin link."""
    pixels = np.ascontiguousarray(frame.pixels)
    header = FrameHeader(frame.ref, frame.band, pixels.shape, stamps, live, jpeg)
    if not jpeg:
        return encode(header, pixels.data)
    from pipeline.transport.jpeg import jpeg_bytes  # here: OpenCV is large, and most cameras do not need it

    return encode(header, jpeg_bytes(pixels))


def frame_of(header: FrameHeader, buffers: Sequence[memoryview]) -> Frame:
    """Return the frame of a message; its pixels are a view of the message's buffer.  Raise WireError."""
    shape = header.shape
    if len(buffers) != 1 or len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] != 3):
        raise WireError(f"frame of shape {shape} with {len(buffers)} buffers: must be HxW or HxWx3 with one buffer")
    size = prod(shape)
    if max(shape) > MAX_SIDE_PX or max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise WireError(f"frame of shape {shape}: sides must be at most {MAX_SIDE_PX}, their ratio {MAX_ASPECT}")
    if size > MAX_FRAME_BYTES or not (header.jpeg or size == buffers[0].nbytes):
        expected = min(size, MAX_FRAME_BYTES)
        raise WireError(f"frame of shape {shape} with {buffers[0].nbytes} bytes: must be {expected}")
    if header.jpeg:
        from pipeline.transport.jpeg import pixels_of_jpeg  # as above

        return Frame(header.ref, header.band, pixels_of_jpeg(buffers[0], shape))
    return Frame(header.ref, header.band, np.frombuffer(buffers[0], np.uint8).reshape(shape))


def result_message(detections: Detections, stamps: Stamps, jpeg: bytes) -> list[Any]:
    """Return the message of a frame's detections and its preview, b"" for none."""
    columns = (
        detections.xyxy,
        detections.score[:, None],
        detections.area_px[:, None],
        detections.centroid,
        detections.mask_score[:, None],
        detections.motion_score[:, None],
        detections.novelty[:, None],
        detections.class_scores,
    )
    result = Result(
        ref=detections.ref,
        band=detections.band,
        size_px=detections.size_px,
        stamps=stamps,
        classes=detections.classes,
        boxes=np.concatenate(columns, axis=1, dtype=np.float32).tobytes(),
        masks=detections.masks,
        mask_scale=detections.mask_scale,
        camera_shift_px=detections.camera_shift_px,
    )
    return encode(result, jpeg)


def detections_of(result: Result) -> Detections:
    """Return the detections of a message.  Raise WireError."""
    classes, width = result.classes, 11 + len(result.classes)
    if not classes or len(set(classes)) != len(classes) or (len(classes) > 1 and UAV not in classes):
        raise WireError(f"result with classes {str(classes)[:100]}: must be one, or several different ones with {UAV}")
    numbers, rest = divmod(len(result.boxes), 4)
    if rest or numbers % width or numbers // width != len(result.masks):
        raise WireError(
            f"result of {numbers} numbers, {len(classes)} classes, {len(result.masks)} masks: "
            "must be one row and one mask per detection"
        )
    rows = np.frombuffer(result.boxes, np.float32).reshape(-1, width)
    _check_rows(rows)
    _check_geometry(result)
    return Detections(
        ref=result.ref,
        band=result.band,
        size_px=result.size_px,
        classes=result.classes,
        xyxy=rows[:, :4],
        score=rows[:, 4],
        area_px=rows[:, 5],
        centroid=rows[:, 6:8],
        mask_score=rows[:, 8],
        motion_score=rows[:, 9],
        novelty=rows[:, 10],
        class_scores=rows[:, 11:],
        masks=result.masks,
        mask_scale=result.mask_scale,
        camera_shift_px=result.camera_shift_px,
    )


def _check_rows(rows: NDArray[np.float32]) -> None:
    """Require boxes with an area, inside or near a frame, and scores that are probabilities; reject NaN."""
    boxes, scores = rows[:, :4], rows[:, [4, 8, *range(11, rows.shape[1])]]
    limit_px, coordinates = 2 * MAX_SIDE_PX, rows[:, [0, 1, 2, 3, 6, 7]]
    areas, unbounded = rows[:, 5], rows[:, 9:11]
    if not ((np.abs(coordinates) <= limit_px).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise WireError("result: boxes must have an area and lie in or near the frame")
    if not ((areas >= 0) & (areas <= limit_px**2)).all() or not ((scores >= 0) & (scores <= 1.001)).all():  # rounding
        raise WireError("result: scores must be 0 to 1, areas must fit the frame")
    if not ((unbounded >= 0) & (unbounded < np.inf)).all():
        raise WireError("result: motion scores and novelties must be 0 or more, and finite")


def _check_geometry(result: Result) -> None:
    if not all(1 <= side <= MAX_SIDE_PX for side in result.size_px):
        raise WireError(f"result for a frame of {result.size_px} px: sides must be 1 to {MAX_SIDE_PX}")
    if not all(isfinite(scale) and 0 < scale <= MAX_SIDE_PX for scale in result.mask_scale):
        raise WireError(f"result with mask scale {result.mask_scale}: must be above 0, at most {MAX_SIDE_PX}")
    if not all(abs(shift) <= MAX_SIDE_PX for shift in result.camera_shift_px or ()):
        raise WireError(f"result with camera shift {result.camera_shift_px} px: must be at most {MAX_SIDE_PX}")
    for mask in result.masks:
        sides = (mask.left, mask.top, mask.width, mask.height)
        if not all(0 <= side <= MAX_SIDE_PX for side in sides) or len(mask.bits) != -(-mask.width * mask.height // 8):
            raise WireError(f"mask at {sides} of {len(mask.bits)} bytes: must have one bit per pixel")
