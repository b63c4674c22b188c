"""Image files of every format and sample type: judged by their headers, decoded alike, or refused with the reason."""

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.png import png
from support.tiff_files import write_tiff

from pipeline.capture.open import open_recording
from pipeline.errors import ImageError, SourceError
from pipeline.imaging.agc import AutomaticGainControl
from pipeline.imaging.files import decoded, decoded_page
from pipeline.imaging.frame_size import MAX_FRAME_PX
from pipeline.imaging.image_header import read_header
from training.datasets.images import LabelledImage, read_labelled_image
from training.datasets.recording import BrokenDataError

COLOUR = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
LOSSLESS_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 101]
FORMATS = [
    (".png", COLOUR, []),
    (".jpg", COLOUR, []),
    (".jpg", GREY, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    (".bmp", COLOUR, []),
    (".webp", COLOUR, []),
    (".webp", COLOUR, LOSSLESS_WEBP),
    (".webp", np.dstack([COLOUR, GREY]), [cv2.IMWRITE_WEBP_QUALITY, 80]),
    (".gif", COLOUR, []),
    (".jp2", COLOUR, []),
    (".pgm", GREY, []),
    (".ppm", COLOUR, []),
    (".tif", COLOUR, []),
]


def encoded(suffix: str, image: NDArray[Any], options: list[int] | None = None) -> bytes:
    return bytes(cv2.imencode(suffix, image, options or [])[1].tobytes())


def image_of(content: bytes) -> NDArray[Any]:
    return decoded(np.frombuffer(content, np.uint8))


@pytest.mark.parametrize(("suffix", "image", "options"), FORMATS)
def test_the_header_tells_the_size_and_one_that_is_cut_off_is_refused(
    suffix: str, image: NDArray[Any], options: list[int]
) -> None:
    content = encoded(suffix, image, options)
    assert read_header(io.BytesIO(content)).size_px == (60, 40)
    assert image_of(content).shape[:2] == (40, 60)
    for length in range(9):
        with pytest.raises(ImageError):
            read_header(io.BytesIO(content[:length]))


def declared(suffix: str, width: int, height: int) -> bytes:
    """A small file that declares to be a large one."""
    content = bytearray(encoded(suffix, COLOUR, [cv2.IMWRITE_WEBP_QUALITY, 80] if suffix == ".webp" else []))
    if suffix == ".jpg":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", height, width)
    elif suffix == ".png":
        content[16:24] = struct.pack(">II", width, height)
    elif suffix == ".bmp":
        content[18:26] = struct.pack("<ii", width, -height)
    elif suffix == ".webp":
        content[26:30] = struct.pack("<HH", min(width, 0x3FFF), min(height, 0x3FFF))
    elif suffix == ".gif":
        content[6:10] = struct.pack("<HH", width, height)
    elif suffix == ".jp2":
        at = content.index(b"\xff\x4f\xff\x51") + 8
        content[at : at + 8] = struct.pack(">II", width, height)
    elif suffix == ".ppm":
        return bytes(content).replace(b"60 40", b"%d %d" % (width, height))
    return bytes(content)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".gif", ".jp2", ".ppm"])
@pytest.mark.parametrize("size_px", [(30_000, 30_000), (16_385, 8), (9_000, 9_000)])
def test_a_size_above_the_limit_is_refused_before_decoding(suffix: str, size_px: tuple[int, int]) -> None:
    if suffix == ".webp" and size_px[0] == 16_385:
        pytest.skip("WebP has no such sides")
    with pytest.raises(ImageError, match=rf"declares \d+x\d+ px; must be at most {MAX_FRAME_PX:,} px"):
        image_of(declared(suffix, *size_px))


@pytest.mark.parametrize("page", [0, 1])
def test_each_page_of_a_tiff_has_its_own_size(tmp_path: Path, page: int) -> None:
    path = write_tiff(tmp_path / "stack.tif", [GREY, GREY])
    content = bytearray(path.read_bytes())
    at = [place for place in range(len(content)) if content[place : place + 8] == struct.pack("<HHI", 256, 4, 1)][page]
    content[at + 8 : at + 12] = struct.pack("<I", 16_000_000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="declares 16000000x40 px"):
        decoded_page(path, page)
    np.testing.assert_array_equal(decoded_page(path, 1 - page), GREY)
    source = open_recording(path)
    shown = []
    with pytest.raises(SourceError, match=r"1 frames were read \(stack.tif.* declares 16000000x40 px; must be at most"):
        shown.extend(source.frames())  # those before the fault are yielded one by one
    source.close()


def test_training_refuses_what_prediction_refuses(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png(10_000, 10_000))
    (tmp_path / "small.png").write_bytes(encoded(".png", GREY))
    for picture in (
        LabelledImage(tmp_path / "image.png"),
        LabelledImage(tmp_path / "small.png", mask=tmp_path / "image.png"),
    ):
        with pytest.raises(
            BrokenDataError, match=rf"image.png: declares 10000x10000 px; must be at most {MAX_FRAME_PX:,}"
        ):
            read_labelled_image(picture, 0)


def scene() -> NDArray[np.int64]:
    """Tenths of a degree: a sky that warms towards the ground, noise, and something hot."""
    random = np.random.default_rng(1)
    rows = np.rint(np.linspace(-40, 210, 96)[:, None] + random.normal(0, 2, (96, 120)))
    rows[30:33, 40:44] = 400
    return rows.astype(np.int64)


SHOWN = AutomaticGainControl()((scene() + 3000).astype(np.uint16))


@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_sample_type_is_shown_alike(tmp_path: Path, kind: str, order: str) -> None:
    values = (scene() + 3000 if kind.startswith("u") else scene()).astype(kind)
    equal = np.stack([values] * 3, axis=2)
    white = -values if values.dtype.kind == "f" else ~values
    for name, path in (
        ("grey", write_tiff(tmp_path / "grey.tif", [values], order=order)),
        ("three equal planes", write_tiff(tmp_path / "equal.tif", [equal], order=order)),
        ("white is zero", write_tiff(tmp_path / "white.tif", [white], order=order, photometric=0)),
    ):
        levels = image_of(path.read_bytes())
        assert levels.dtype == kind and levels.ndim == 2, name
        assert np.abs(AutomaticGainControl()(levels).astype(int) - SHOWN).max() <= 1, name  # ~ moves integers by one


def test_degrees_are_shown_as_counts_are() -> None:
    degrees = (scene() / 10).astype(np.float32)
    for values in (degrees, degrees + 273.15, degrees.astype(np.float64) * 1.8 + 32):
        np.testing.assert_allclose(AutomaticGainControl()(values).astype(int), SHOWN, atol=1)
    eighth = np.rint(scene() / 8)
    np.testing.assert_array_equal(AutomaticGainControl()(eighth.astype(np.int8)), AutomaticGainControl()(eighth))


def test_an_even_sky_in_degrees_is_not_blown_up() -> None:
    noise = 21 + np.random.default_rng(0).normal(0, 0.03, (256, 320)).astype(np.float32)
    for values in (noise, np.round(noise, 1), (noise * 100).astype(np.int16)):
        assert AutomaticGainControl()(values).std() < 16
    assert (AutomaticGainControl()(np.full((9, 9), 21.5, np.float32)) == 128).all()


def test_pixels_without_a_value_change_nothing_around_them(tmp_path: Path) -> None:
    degrees = (scene() / 10).astype(np.float32)
    holed = degrees.copy()
    holed[60, 50:53], holed[61, 7], holed[0, 0], holed[5, 9] = np.nan, np.inf, -np.inf, -3.4e38
    whole = ~((np.abs(holed) > 1e30) | np.isnan(holed))
    shown = AutomaticGainControl()(image_of(write_tiff(tmp_path / "holed.tif", [holed]).read_bytes())).astype(int)
    assert np.abs(shown - SHOWN)[whole].max() <= 2
    assert np.abs(shown - SHOWN)[~whole].max() < 40, "filled from beside, no targets"
    with pytest.raises(ImageError, match="no finite value in its float32 samples"):
        image_of(write_tiff(tmp_path / "none.tif", [degrees * np.nan]).read_bytes())


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits(tmp_path: Path, bits: int) -> None:
    values = (scene() + 300).astype(np.uint16)
    each = values[..., None] >> np.arange(bits)[::-1] & 1
    packed = np.packbits(each.reshape(len(values), -1).astype(bool), axis=1)
    path = write_tiff(tmp_path / "packed.tif", [packed], tags={256: (4, [values.shape[1]]), 258: (3, [bits])})
    assert np.abs(AutomaticGainControl()(image_of(path.read_bytes())).astype(int) - SHOWN).max() <= 1


def test_eight_bits_and_fewer_stay_as_they_are(tmp_path: Path) -> None:
    path, levels = tmp_path / "a.tif", np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = [level * 257 for level in range(256)]
    for expected, written in (
        (levels, write_tiff(path, [levels]).read_bytes()),
        (255 - levels, write_tiff(path, [levels], photometric=0).read_bytes()),
        (~levels.view(np.int8), write_tiff(path, [levels.view(np.int8)], photometric=0).read_bytes()),
        (np.where(levels > 99, 255, 0), write_tiff(path, [levels > 99], bits=1).read_bytes()),
        (levels, write_tiff(path, [np.stack([levels, levels], 2)], tags={338: (3, [2])}).read_bytes()),
        (COLOUR, write_tiff(path, [COLOUR], planar=True).read_bytes()),
        (COLOUR, write_tiff(path, [COLOUR.astype(np.uint16) * 257]).read_bytes()),
        (
            np.stack([levels, 0 * levels, 255 - levels], 2),
            write_tiff(path, [levels], photometric=3, tags={320: (3, [*table, *[0] * 256, *table[::-1]])}).read_bytes(),
        ),
    ):
        np.testing.assert_array_equal(image_of(written), expected)


@pytest.mark.parametrize(
    ("values", "options", "told"),
    [
        (scene().astype(np.float16), {}, "is a TIFF of 1 float16 sample for each pixel"),
        (np.stack([scene(), scene() + 1, scene()], 2).astype(np.int16), {}, "colour image of int16 samples"),
        (np.stack([scene(), scene() + 1, scene()], 2).astype(np.float32), {}, "colour image of float32 samples"),
        (
            np.stack([scene()] * 3, 2).astype(np.int16),
            {"planar": True},
            "3 int16 samples for each pixel in separate planes",
        ),
        (np.stack([scene()] * 2, 2).astype(np.int16), {}, "TIFF of 2 int16 samples"),
        (np.stack([scene()] * 7, 2).astype(np.int16), {}, "TIFF of 7 int16 samples"),
        (scene().astype(np.uint32), {"bits": 24}, "TIFF of 1 uint24 sample"),
        (scene().astype(np.float32), {"tags": {339: (3, [6])}}, "TIFF of 1 complex float32 sample"),
        (scene().astype(np.uint8), {"bits": 2}, "TIFF of 1 uint2 sample"),
        (
            scene().astype(np.uint16),
            {"tags": {259: (3, [34712])}},
            "TIFF of 1 uint16 sample for each pixel that cannot",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_its_type(
    tmp_path: Path, values: NDArray[Any], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ImageError, match=told):
        image_of(write_tiff(tmp_path / "a.tif", [values], **options).read_bytes())


def chunked(content: bytes, kind: bytes, inside: bytes) -> bytes:
    return content[:33] + struct.pack(">I", len(inside)) + kind + inside + b"\0\0\0\0" + content[33:]


def test_decoders_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    half = encoded(".jpg", COLOUR)
    for content in (
        chunked(encoded(".png", COLOUR), b"gAMA", b"\0\0\0\1"),
        encoded(".png", COLOUR)[:-30] + bytes(30),
        half[: len(half) // 2] + b"\xff\xd3" + half[len(half) // 2 :],
        half[:-2] + bytes(40) + half[-2:],
        encoded(".jp2", COLOUR)[:-200],
        write_tiff(tmp_path / "a.tif", [COLOUR], tags={50000: (4, [1, 2, 3])}).read_bytes(),
        write_tiff(tmp_path / "a.tif", [COLOUR], tags={259: (3, [5])}).read_bytes(),
    ):
        try:
            image_of(content)
        except ImageError:
            continue
    assert capfd.readouterr().err == ""


SEEDS = [encoded(suffix, image, options) for suffix, image, options in FORMATS]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_an_image_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 400) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        image = image_of(bytes(content))
    except ImageError:
        return
    assert AutomaticGainControl()(image).size <= 3 * MAX_FRAME_PX
