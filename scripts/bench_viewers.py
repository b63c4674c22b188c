"""Benchmark of console viewers: the pipeline's frame rate without and with viewers, in turn.

    python3 scripts/bench_viewers.py --viewers 20 --json viewers.json

In: the demo (or `--config`).  Each viewer holds the live stream and fetches the image of every frame that has one, as
the page does.  They run on this machine, in one process, so that their own work is in the cost: other machines would
take it away from here.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from prometheus_client.parser import text_string_to_metric_families

from pipeline.bench.results import machine

ROOT = Path(__file__).resolve().parent.parent
SETTLE_S = 5.0  # before each measurement
START_S = 60.0


@dataclass(frozen=True)
class Turn:
    viewers: int
    frames_per_s: float  # segmented, of all cameras
    console_cpu: float  # cores
    updates_per_s: float  # live messages received by all viewers
    pictures_per_s: float
    network_share: float  # of the frames' pixels, which falls before frames do; the least camera's, at the end


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml")
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="each without and with viewers")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine()
    command = [sys.executable, "-m", "pipeline", "run", str(options.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as program:
        try:
            console, metrics = addresses(program)
            turns = asyncio.run(measure(console, metrics, options.viewers, options.rounds, options.seconds))
        finally:
            program.terminate()
    print("| viewers | frames/s | console, cores | updates/s | pictures/s | share |")
    print("| --- | --- | --- | --- | --- | --- |")
    for turn in turns:
        print("| " + " | ".join(f"{value:.4g}" for value in asdict(turn).values()) + " |")
    alone = statistics.median(turn.frames_per_s for turn in turns if not turn.viewers)
    watched = statistics.median(turn.frames_per_s for turn in turns if turn.viewers)
    print(f"\n{options.viewers} viewers cost {1 - watched / alone:.1%} of {alone:.1f} frames/s")
    if options.json:
        report = {"machine": about, "cost": 1 - watched / alone, "turns": [asdict(turn) for turn in turns]}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def addresses(program: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return the addresses of console and metrics."""
    found: dict[str, str] = {}
    assert program.stdout is not None
    for line in program.stdout:
        if match := re.match(r"(console|metrics): (http\S+)", line):
            found[match[1]] = match[2].rstrip("/")
        if len(found) == 2:
            return found["console"], found["metrics"]
    raise SystemExit("dasnet ended before it said where its console and metrics are")


async def measure(console: str, metrics: str, viewers: int, rounds: int, seconds: float) -> list[Turn]:
    deadline_s = time.monotonic() + START_S
    while (await asyncio.to_thread(read, metrics))[0] < 1:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"no frame was segmented within {START_S:g} s")
        await asyncio.sleep(0.5)
    turns = []
    for number in [0, viewers] * rounds:
        taken = [0, 0]
        watching = [asyncio.create_task(watch(console, taken)) for _ in range(number)]
        await asyncio.sleep(SETTLE_S)
        before, began_s, taken_before = await asyncio.to_thread(read, metrics), time.monotonic(), list(taken)
        await asyncio.sleep(seconds)
        after, took_s = await asyncio.to_thread(read, metrics), time.monotonic() - began_s
        rates = [(b - a) / took_s for a, b in zip((*before[:2], *taken_before), (*after[:2], *taken), strict=True)]
        for task in watching:
            task.cancel()
        ended = await asyncio.gather(*watching, return_exceptions=True)
        broken = [error for error in ended if not isinstance(error, asyncio.CancelledError)]
        if broken:
            raise SystemExit(f"{len(broken)} viewers lost the console: {broken[0]!r}")
        frames, cpu, updates, pictures = rates
        turns.append(Turn(number, frames, cpu, updates, pictures, after[-1]))
    return turns


async def watch(console: str, taken: list[int]) -> None:
    """View until cancelled; `taken` counts updates and images.

    Plain sockets: a client library would take more of the processor than the console does, and a browser is elsewhere.
    """
    live, pictures = await connected(console), None
    try:
        await request(live, "/api/v1/live")
        topic = ""
        while line := await live[0].readline():  # one message per chunk, between lines with lengths
            if line.startswith(b"event:"):
                topic = line[6:].strip().decode()
            elif line.startswith(b"data:") and topic == "frame":
                taken[0] += 1
                update = json.loads(line[5:])
                if update["picture"]:
                    frame = update["frame"]
                    place = f"/api/v1/cameras/{quote(frame['camera'])}/frames/{frame['seq']}.jpg"
                    pictures = pictures or await connected(console)
                    try:
                        length = await request(pictures, f"{place}?session={quote(frame['session'])}")
                        await pictures[0].readexactly(length)
                        taken[1] += 1
                    except (asyncio.IncompleteReadError, ConnectionResetError):  # idle ones are closed: as browsers do
                        pictures[1].close()
                        pictures = None
        raise ConnectionError("the live stream ended")
    finally:
        for connection in filter(None, (live, pictures)):
            connection[1].close()


async def connected(console: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to the console."""
    address = urlsplit(console)
    return await asyncio.open_connection(address.hostname, address.port)


async def request(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> int:
    """Send a request and return the length of the response's body, 0 where it is not stated."""
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, _, fields = head.partition("\r\n")
    if " 200 " not in f"{status} " and " 404 " not in f"{status} ":  # a frame may have expired
        raise ConnectionError(f"{path}: {status}")
    return int((re.search(r"content-length: (\d+)", fields) or [0, 0])[1])


def read(metrics: str) -> tuple[float, float, float]:
    """Return the frames segmented so far, the console's CPU time in seconds, and the network's share of the pixels."""
    with urllib.request.urlopen(metrics, timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    frames = sum(sample.value for sample in samples if sample.name == "dasnet_frames_segmented_total")
    cpu_s = sum(
        sample.value
        for sample in samples
        if sample.name == "dasnet_process_cpu_seconds_total" and sample.labels.get("worker") == "console"
    )
    shares = [sample.value for sample in samples if sample.name == "dasnet_network_share"]
    return frames, cpu_s, min(shares, default=1.0)


if __name__ == "__main__":
    sys.exit(main())
