"""Draw the two charts of docs/architecture.md as SVG, so that the documentation needs no renderer and no network.

python3 scripts/make_diagrams.py docs/images
"""

import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

LINE_PX, PADDING_PX = 18, 12
STYLE = """<style>
text{font:13px system-ui,sans-serif;fill:#1d2430}
.title{font-weight:600;font-size:14px}.small{font-size:12px;fill:#4a5568}
.process{fill:#e8f0fe;stroke:#3367d6}.file{fill:#fef7e0;stroke:#b06000}.outside{fill:#f1f3f4;stroke:#80868b}
.note{fill:#e6f4ea;stroke:#188038}.arrow{fill:none;stroke:#3c4043;stroke-width:1.4;marker-end:url(#head)}
.line{stroke:#9aa0a6;stroke-dasharray:4 4}.back{stroke-dasharray:6 4}
</style>
<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path d="M0 0L10 5L0 10z" fill="#3c4043"/></marker>"""


class Box(NamedTuple):
    """A titled rectangle; `kind` is its class in the style sheet."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    title: str
    lines: Sequence[str] = ()

    def draw(self) -> Iterator[str]:
        """Yield the elements of the box."""
        yield (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8" class="{self.kind}"/>'
        )
        y = self.y + PADDING_PX + 10
        yield text(self.x + PADDING_PX, y, self.title, "title")
        for number, line in enumerate(self.lines, start=1):
            yield text(self.x + PADDING_PX, y + number * LINE_PX, line)


class Arrow(NamedTuple):
    """A line through `points` with its head at the last, and a label whose text starts at `at`."""

    points: Sequence[tuple[int, int]]
    label: Sequence[str]
    at: tuple[int, int]

    def draw(self) -> Iterator[str]:
        """Yield the elements of the arrow."""
        yield arrow(self.points)
        for number, line in enumerate(self.label):
            yield text(self.at[0], self.at[1] + number * 15, line, "small")


class Message(NamedTuple):
    """One step of a sequence chart; equal ends make a note on that lifeline."""

    sender: int
    receiver: int
    lines: Sequence[str]
    kind: str = ""


def text(x: int, y: int, content: str, kind: str = "") -> str:
    """Return a text element."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x}" y="{y}"{style}>{escape(content)}</text>'


def arrow(points: Sequence[tuple[int, int]], kind: str = "") -> str:
    """Return a polyline with a head."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" class="{f"arrow {kind}".strip()}"/>'


def note(x: int, y: int, width: int, lines: Sequence[str]) -> Iterator[str]:
    """Yield the elements of a note whose middle is at `y`."""
    height = 16 + LINE_PX * len(lines)
    yield f'<rect x="{x}" y="{y - height // 2}" width="{width}" height="{height}" rx="6" class="note"/>'
    for number, line in enumerate(lines):
        yield text(x + PADDING_PX, y - height // 2 + 21 + LINE_PX * number, line)


def document(width: int, height: int, title: str, elements: Sequence[str]) -> str:
    """Return a whole SVG on a white ground, which is readable on light and dark pages."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    ground = f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, ground, *elements, "</svg>", ""])


BOXES = (
    Box(20, 40, 150, 120, "outside", "camera", ("RTSP, HTTP, V4L2,", "RTP (SDP), or a", "recording (file:)")),
    Box(
        *(250, 40, 240, 120, "process", "capture worker"),
        ("one per camera, no torch", "decode, timestamps", "image health", "frame queue (8 frames), ledger"),
    ),
    Box(
        *(620, 40, 240, 130, "process", "segmentation worker"),
        (
            "credit scheduler, batching",
            "preprocess: AGC, scale, pad",
            "DAS-Net: native, torch or CUDA",
            "postprocess: masks to detections",
            "motion candidates; judge of chips",
        ),
    ),
    Box(
        *(620, 280, 240, 140, "process", "tracking worker"),
        (
            "tracker (Kalman, assignment)",
            "alerting: one alert per target",
            "store writer, outbox, retention",
            "(threads: never waits for a disk)",
        ),
    ),
    Box(
        *(250, 280, 240, 140, "file", "run folder"),
        (
            "store.sqlite: events, alerts",
            "snapshots/: JPEGs of each alert",
            "events.jsonl: the JSONL sink",
            "spill.jsonl: while the store fails",
        ),
    ),
    Box(
        20,
        280,
        150,
        140,
        "file",
        "ledgers/",
        ("one file per camera", "captured =", "segmented", "+ dropped + failed", "+ in flight"),
    ),
    Box(620, 500, 240, 90, "process", "console", ("pages, /api/v1, live frames", "Try it: predict or replay")),
    Box(250, 500, 240, 90, "outside", "browser", ("operator: alerts, latency,", "status, Try it")),
    Box(
        *(250, 670, 610, 90, "process", "supervisor"),
        (
            "starts, restarts and stops the workers; hands them the configuration",
            "collects their metrics; serves /metrics, /healthz and /readyz for the host",
        ),
    ),
    Box(20, 670, 150, 90, "outside", "Prometheus", ("Grafana dashboard,", "alert rules")),
)
ARROWS = (
    Arrow([(170, 100), (250, 100)], ["packets"], (184, 92)),
    Arrow([(490, 80), (620, 80)], ["frames"], (532, 72)),
    Arrow([(620, 130), (490, 130)], ["credit,", "outcomes"], (530, 147)),
    Arrow([(740, 170), (740, 280)], ["detections,", "masks, preview"], (750, 220)),
    Arrow([(430, 160), (430, 225), (660, 225), (660, 280)], ["camera up, down, blind"], (440, 218)),
    Arrow([(620, 352), (490, 352)], ["events, tracks,", "snapshots"], (512, 328)),
    Arrow([(270, 160), (270, 225), (95, 225), (95, 280)], ["counts"], (110, 218)),
    Arrow([(740, 420), (740, 500)], ["live frames", "and tracks"], (750, 456)),
    Arrow([(370, 420), (370, 460), (660, 460), (660, 500)], ["reads store and ledgers, writes reviews"], (400, 453)),
    Arrow([(620, 545), (490, 545)], ["HTTP, SSE"], (522, 537)),
    Arrow([(700, 670), (700, 590)], ["configuration", "(to every worker)"], (590, 622)),
    Arrow([(770, 590), (770, 670)], ["heartbeats", "(from all)"], (780, 626)),
    Arrow([(170, 715), (250, 715)], ["scrape"], (190, 707)),
)
LIFELINES = ("capture worker", "segmentation worker", "device", "tracking worker")
MESSAGES = (
    Message(0, 0, ("frame 1 is decoded; it waits in the frame queue",)),
    Message(0, 1, ("CreditRequest(camera, session)", "repeated every 0.5 s until credit comes")),
    Message(1, 1, ("round robin: a place in the next batch is free,", "this camera has waited longest")),
    Message(1, 0, ("Credit(granted)",), "back"),
    Message(0, 1, ("FrameHeader + pixels", "ledger: captured + 1, in flight + 1")),
    Message(1, 2, ("batch: at most one frame", "of each live camera")),
    Message(2, 1, ("probabilities",), "back"),
    Message(1, 3, ("Result: detections, masks, times, preview",)),
    Message(1, 0, ("Credit(segmented=[1], granted)", "ledger: in flight - 1, segmented + 1"), "back"),
    Message(
        0, 0, ("overload: the queue is full, or its oldest frame too", "old: the newest stays, the others are dropped")
    ),
    Message(1, 0, ("Credit(failed=[2]): the batch failed", "or overran 8 s; ledger: failed + 1"), "back"),
)


def data_flow() -> str:
    """Return the flow chart: processes, what they exchange, and what they leave on disk."""
    elements = [element for shape in (*BOXES, *ARROWS) for element in shape.draw()]
    return document(880, 780, "Processes and data flow of dasnet run", elements)


def credit_flow() -> str:
    """Return the sequence chart of the credit flow."""
    column_px, top_px, step_px, note_px = 285, 50, 62, 350
    centres = [110 + column_px * number for number in range(len(LIFELINES))]
    height = top_px + step_px * (len(MESSAGES) + 1)
    elements: list[str] = []
    for centre, name in zip(centres, LIFELINES, strict=True):
        elements += Box(centre - 100, 10, 200, 34, "process", name).draw()
        elements.append(f'<path d="M{centre} {top_px}V{height - 20}" class="line"/>')
    for number, message in enumerate(MESSAGES, start=1):
        y = top_px + number * step_px
        start, end = centres[message.sender], centres[message.receiver]
        if start == end:
            elements += note(start - 20, y, note_px, message.lines)
            continue
        elements.append(arrow([(start, y), (end - 2 if end > start else end + 2, y)], message.kind))
        elements.append(text(min(start, end) + 16, y - 7, message.lines[0]))
        elements += [text(min(start, end) + 16, y + 16, line, "small") for line in message.lines[1:]]
    return document(centres[-1] + 130, height, "Credit flow between a camera and the device", elements)


def main() -> None:
    """Write both charts into the folder that is named."""
    folder = Path(sys.argv[1])
    for name, chart in (("data_flow", data_flow()), ("credit_flow", credit_flow())):
        (folder / f"{name}.svg").write_text(chart, encoding="utf-8")


if __name__ == "__main__":
    main()
