"""Photometric augmentation: polarity, tone, blur, noise, compression and on-screen display; labels stay unchanged.

In and out: a crop (S, S, 3) RGB uint8.
"""

import cv2
import numpy as np
import numpy.typing as npt

from training.masks import Image

Random = np.random.Generator
Floats = npt.NDArray[np.float32]
LETTERS = "0123456789ABCDEFGHIKLMNOPRSTUVXZ:.-/%"


def photometry(rng: Random, image: Image, sensor: str, invert_share: float, overlay_share: float) -> Image:
    """Return the image after random changes of polarity, tone, blur, noise, compression and overlay."""
    infrared = sensor == "infrared"
    if rng.random() < (invert_share if infrared else invert_share / 4):
        image = 255 - image
    pixels = _tone(rng, image.astype(np.float32), infrared)
    if rng.random() < 0.3:
        sigma = float(rng.uniform(0.3, 1.1))
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)
    elif rng.random() < 0.15:
        pixels += rng.uniform(0.3, 1.2) * (pixels - np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.2)))
    if rng.random() < 0.4:
        pixels += _sensor_noise(rng, pixels.shape, infrared)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    draws_after = rng.random() < 0.5
    overlay = rng.random() < overlay_share
    if overlay and not draws_after:
        _draw_overlay(rng, image)
    if rng.random() < 0.35:
        quality = int(rng.integers(25, 85))
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    if overlay and draws_after:
        _draw_overlay(rng, image)
    return image


def _tone(rng: Random, pixels: Floats, infrared: bool) -> Floats:
    """Change gamma, contrast about the mean, brightness and colour cast; one in eight loses most of its contrast."""
    if rng.random() < 0.5:
        pixels = np.asarray(255 * (pixels / 255) ** np.float32(np.exp(rng.uniform(-0.5, 0.5))), np.float32)
    gain = rng.uniform(0.35, 0.65) if rng.random() < 0.125 else np.exp(rng.uniform(-0.4, 0.5))
    mean = float(pixels.mean())
    pixels = (pixels - mean) * np.float32(gain) + np.float32(mean + rng.uniform(-35, 35))
    if not infrared and rng.random() < 0.3:
        pixels = pixels * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return np.asarray(pixels, np.float32)


def _sensor_noise(rng: Random, shape: tuple[int, ...], infrared: bool) -> Floats:
    """Return white or slightly blurred noise; infrared sensors also have column noise."""
    channels = 1 if infrared or rng.random() < 0.5 else 3
    noise = rng.standard_normal((*shape[:2], channels), dtype=np.float32) * np.float32(rng.uniform(1, 7))
    if rng.random() < 0.4:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.7), np.float32).reshape(*shape[:2], channels) * 2
    if infrared and rng.random() < 0.3:
        noise = noise + rng.standard_normal((1, shape[1], 1), dtype=np.float32) * np.float32(rng.uniform(0.5, 4))
    return noise


def _draw_overlay(rng: Random, image: Image) -> None:
    """Draw text, cross-hairs, frames and scales of an on-screen display, in place."""
    size_px = image.shape[0]
    for _ in range(int(rng.integers(1, 5))):
        colour = _colour(rng)
        x, y = (int(value) for value in rng.integers(0, size_px, 2))
        kind, thick = rng.random(), int(rng.integers(1, 3))
        if kind < 0.45:
            text = "".join(rng.choice(list(LETTERS), int(rng.integers(1, 14))))
            font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX]))
            cv2.putText(image, text, (x - 30, y), font, float(rng.uniform(0.3, 0.9)), colour, thick, cv2.LINE_AA)
        elif kind < 0.65:
            arm, gap = int(rng.integers(4, 40)), int(rng.integers(0, 4))
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                cv2.line(image, (x + dx * gap, y + dy * gap), (x + dx * arm, y + dy * arm), colour, thick)
        elif kind < 0.85:
            across, down = (int(value) for value in rng.integers(6, 90, 2))
            cv2.rectangle(image, (x, y), (x + across, y + down), colour, thick)
        else:
            end = (x + int(rng.integers(-120, 120)), y if rng.random() < 0.5 else y + int(rng.integers(-120, 120)))
            cv2.line(image, (x, y), end, colour, thick)


def _colour(rng: Random) -> tuple[int, int, int]:
    choices = ((255, 255, 255), (255, 255, 255), (0, 0, 0), (0, 255, 0), (255, 0, 0), (255, 255, 0))
    red, green, blue = choices[int(rng.integers(len(choices)))]
    return red, green, blue
