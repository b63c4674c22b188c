"""Draw the zones of docs/rules.md's first example on a frame with its tracks.

python3 scripts/rules_picture.py docs/images/zones.jpg
"""

import re
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import yaml

from pipeline.imaging.zones import draw_zones

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "tests" / "data" / "clips" / "IR_DRONE_019.mp4"
FRAME = 120
SCALE = 3


def main(path: Path) -> None:
    """Write the picture."""
    first = re.search(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "rules.md").read_text(), re.DOTALL | re.MULTILINE)
    assert first is not None
    zones = yaml.safe_load(first[1])["cameras"][0]["zones"]
    with av.open(str(CLIP)) as video:
        frame = next(frame for number, frame in enumerate(video.decode(video=0)) if number == FRAME)
    image = draw_zones(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), zones, SCALE)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
