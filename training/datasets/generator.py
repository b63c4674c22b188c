"""Procedural scenes (`pipeline.imaging.synthetic_scene`) as an unlimited data set with exact masks.

`scene:count=500,seed=1,size=640x512` has 500 frames per split: day, dusk, fog and both infrared polarities with gain
steps in turn, clouds from none to dense, targets of about 3 to 45 pixels at 640x512 and in proportion at others, times
`targets=1`; every fifth round of looks has birds and airplanes only.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets.recording import LABEL_OF, DataCheck, DataError, LabelledFrame, LabelledObject, LabelledRecording

if TYPE_CHECKING:
    from pipeline.imaging.synthetic_scene import Actor

PREFIX = "scene:"
SPLITS = ("train", "val", "test")
FRAMES_PER_SCENE = 10
SCENE_LENGTH_S = 600.0
FORMS = {"count": r"[1-9]\d*", "seed": r"\d+", "size": r"\d+x\d+", "targets": r"[1-9]\d*"}


@dataclass(frozen=True)
class SceneRecording(LabelledRecording):
    """Frames of one scene."""

    name: str
    sensor: str
    clip_class: str
    split: str
    seed: int
    look: str
    cast: tuple["Actor", ...]
    clouds: float
    scale: float
    width_px: int
    height_px: int
    times_s: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.times_s)

    def may_show(self, number: int, object_class: str) -> bool:  # noqa: ARG002
        """Return whether a frame may show an object of the class."""
        return any(_class_of(actor) == object_class for actor in self.cast)

    def read(self, numbers: Collection[int]) -> Iterator[LabelledFrame]:
        """Yield the given frames, in order."""
        from pipeline.imaging.synthetic_scene import Look, Scene

        scene = Scene(self.seed, self.width_px, self.height_px, Look(self.look), self.cast, self.clouds, self.scale)
        for number in sorted(number for number in set(numbers) if number < len(self.times_s)):
            image, seen = scene.render(self.times_s[number])
            labels = np.zeros(image.shape[:2], np.uint8)
            objects = []
            for truth in seen:
                shown = _class_of(truth.kind)
                labels[truth.window][truth.mask] = LABEL_OF[shown]
                objects.append(LabelledObject(truth.id, shown, truth.xyxy))
            yield LabelledFrame(number, image, labels, tuple(objects))

    def checks(self) -> list[DataCheck]:
        """Return the checks of the data."""
        return []

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the frames."""
        from pipeline.imaging import synthetic_scene as scene

        return {**asdict(self), "generator": hashlib.sha256(Path(scene.__file__).read_bytes()).hexdigest()}


def read(address: str, splits: Collection[str]) -> list[SceneRecording]:
    """Return the scenes of an address; raise DataError for an unknown or malformed argument."""
    given = [part.partition("=") for part in address.removeprefix(PREFIX).split(",") if part]
    for key, _, value in given:
        if key not in FORMS or not re.fullmatch(FORMS[key], value):
            raise DataError(f"data {address}: {key} is {value!r}; expected count=500, seed=1, size=640x512, targets=1")
    values = {"count": "500", "seed": "0", "size": "640x512", "targets": "1"} | {key: value for key, _, value in given}
    width_px, height_px = map(int, values["size"].split("x"))
    if min(width_px, height_px) < 64:
        raise DataError(f"data {address}: size is {values['size']!r}; must be 64x64 or larger")
    seed, count, targets = int(values["seed"]), int(values["count"]), int(values["targets"])
    starts = range(0, count, FRAMES_PER_SCENE)
    return [
        _scene(split, place, seed, width_px, height_px, targets, min(FRAMES_PER_SCENE, count - start))
        for split in SPLITS
        if split in splits
        for place, start in enumerate(starts)
    ]


def _scene(
    split: str, place: int, seed: int, width_px: int, height_px: int, targets: int, frames: int
) -> SceneRecording:
    from pipeline.imaging.synthetic_scene import Look

    rng = np.random.default_rng((seed, SPLITS.index(split), place))
    look = list(Look)[place % len(Look)]
    cast = _cast(rng, with_uav=place // len(Look) % 5 != 4)
    return SceneRecording(
        name=f"{split}/{look}_{place:05d}",
        sensor="infrared" if look in (Look.INFRARED_WHITE_HOT, Look.INFRARED_BLACK_HOT) else "visible",
        clip_class=min((_class_of(actor) for actor in cast), key=LABEL_OF.__getitem__),
        split=split,
        seed=int(rng.integers(2**31)),
        look=str(look),
        cast=cast,
        clouds=round(float(rng.uniform(0, 0.9)), 3),
        scale=round(targets * float(np.exp(rng.uniform(np.log(0.2), np.log(1.1)))), 3),
        width_px=width_px,
        height_px=height_px,
        times_s=tuple(np.sort(rng.uniform(0, SCENE_LENGTH_S, frames)).round(3).tolist()),
    )


def _cast(rng: np.random.Generator, with_uav: bool) -> tuple["Actor", ...]:
    """Return the actors, far to near: sometimes an airplane, one or two UAVs, up to three birds."""
    airplane: list[Actor] = ["airplane"] * int(rng.random() < 0.4)
    birds: list[Actor] = ["bird"] * int(rng.integers(0 if with_uav else 1, 4))
    uavs: list[Actor] = ["fixed_wing", "quadcopter"]
    chosen = uavs if rng.random() < 0.3 else [uavs[int(rng.integers(2))]]
    return (*airplane, *(chosen if with_uav else []), *birds)


def _class_of(kind: str) -> str:
    return "drone" if kind in ("uav", "quadcopter", "fixed_wing") else kind
