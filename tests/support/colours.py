"""How far colours differ for people with any colour vision, and how well text can be read.

Colour vision deficiencies are simulated after Machado et al. (2009), at full severity; differences are CIEDE2000.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
) / np.array([[0.95047], [1.0], [1.08883]])
Rgb = NDArray[np.float64]

STATES = Path(__file__).with_name("states.js").read_text(encoding="utf-8")


def rgb(colour: str) -> Rgb:
    """A colour as #rgb or #rrggbb, 0 to 1."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    return np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255


def _linear(colour: str) -> Rgb:
    value = rgb(colour)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    """The contrast of WCAG, 1 to 21."""
    low, high = sorted(float(_linear(each) @ (0.2126, 0.7152, 0.0722)) for each in (one, two))
    return (high + 0.05) / (low + 0.05)


def least_difference(one: str, two: str) -> float:
    """The difference for those to whom the two colours look most alike."""
    return min(_difference(_lab(one, vision), _lab(two, vision)) for vision in VISIONS)


def _lab(colour: str, vision: str) -> Rgb:
    ratios = _XYZ @ np.clip(VISIONS[vision] @ _linear(colour), 0, 1)
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _difference(one: Rgb, two: Rgb) -> float:
    """CIEDE2000 of two colours in CIELAB (Sharma et al. 2005)."""
    mean = math.hypot(*one[1:]) / 2 + math.hypot(*two[1:]) / 2
    stretch = 1.5 - 0.5 * math.sqrt(mean**7 / (mean**7 + 25**7))
    (chroma, hue), (chroma2, hue2) = (_polar(stretch * each[1], each[2]) for each in (one, two))
    turn = (hue2 - hue + 180) % 360 - 180 if chroma * chroma2 else 0.0
    light, chroma_mean, hue_mean = (one[0] + two[0]) / 2, (chroma + chroma2) / 2, hue + turn / 2
    weight = sum(
        factor * math.cos(math.radians(times * hue_mean + shift))
        for factor, times, shift in ((1, 0, 0), (-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    )
    off = (light - 50) ** 2
    lightness = (two[0] - one[0]) / (1 + 0.015 * off / math.sqrt(20 + off))
    colourfulness = (chroma2 - chroma) / (1 + 0.045 * chroma_mean)
    angle = 2 * math.sqrt(chroma * chroma2) * math.sin(math.radians(turn / 2)) / (1 + 0.015 * chroma_mean * weight)
    rotation = math.exp(-(((hue_mean % 360 - 275) / 25) ** 2))
    mixed = -2 * math.sqrt(chroma_mean**7 / (chroma_mean**7 + 25**7)) * math.sin(math.radians(60 * rotation))
    return math.sqrt(lightness**2 + colourfulness**2 + angle**2 + mixed * colourfulness * angle)


def _polar(a: float, b: float) -> tuple[float, float]:
    return math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360


def unreadable(page: Page, least: float) -> Iterator[tuple[str, str, float]]:
    """What can be operated on a page and is less readable in some state: element, state, contrast."""
    for name, state, ratio in page.evaluate(STATES):
        if ratio < least:
            yield name, state, ratio
