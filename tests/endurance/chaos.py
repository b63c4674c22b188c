"""Fault injection against the real program: time to recovery, and no frame or event lost or duplicated.

    make chaos FAULTS=200 SEED=1
    PYTHONPATH=tests python -m endurance.chaos --faults 3 --kinds end_capture,supervisor_killed

Real RTSP cameras, real processes; the seed chooses the faults and their targets.  After each fault: the time until
every camera is segmented again, ledgers balanced, the store's events in events.jsonl and with every sink, no leftover
process or open descriptor.  At the end: every clip is whole.  The last line is one JSON object; the exit code is 1
where a limit is missed.

As root it runs in its own network and mount namespaces (`unshare`), which packet loss and full disks require; packet
loss requires `nftables` too.  Faults that are not possible here are skipped with the reason.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from endurance.chaos_faults import FAULTS, PASSWORD, answers, unavailable
from endurance.chaos_outputs import broken_clips, events, receivers
from endurance.chaos_target import LogPipe, Target
from endurance.fleet import (
    DASNET,
    RtspCameras,
    Running,
    accounts,
    cameras,
    descriptors,
    encoded,
    free_ports,
    percentile,
    processes,
    write_site,
)

RECOVERY_S = 5.0  # limit of the 95th percentile, from the end of the fault
SLOW = ("wrong_password", "supervisor_killed")  # excluded from it: retried every half minute, or a complete restart
LIMIT_S = 90.0  # no recovery by then is a violation
END_S = 40.0
SLACK_S = 12.0  # blindness from before a fault may be counted after it
LEFTOVER_S = 3.0  # for processes and descriptors to go
SPARE_DESCRIPTORS = 8  # connections and files may be open briefly
CAMERAS, FPS = 3, 5
TMPFS_MB = 96
POSE = {"lat": 48.1, "lon": 11.7, "azimuth_deg": 90, "elevation_deg": 10, "hfov_deg": 40}
STORE = Path("store") / "store.sqlite"
STEPPED_CLOCK = """import time

true_ns = time.time_ns


def time_ns() -> int:
    with open({clock!r}) as file:
        return true_ns() + int(file.read() or 0) * 10**9


time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9
"""  # loaded as sitecustomize: Debian's libfaketime breaks time.sleep of Python 3.11
NAMESPACE_VARIABLE = "DASNET_CHAOS_NAMESPACE"  # set in the own namespaces


@dataclass
class Finding:
    """Effect of one fault."""

    kind: str
    recovery_s: float
    violations: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(FAULTS), help="comma-separated; default: all")
    options = parser.parse_args()
    wanted = options.kinds.split(",")
    unknown = sorted(set(wanted) - set(FAULTS))
    if unknown:
        parser.error(f"--kinds {unknown[0]!r}; must be of {', '.join(FAULTS)}")
    enter_namespaces()
    missing = unavailable(NAMESPACE_VARIABLE in os.environ)
    for kind in sorted(set(wanted) & set(missing)):
        print(f"skipped: {kind}, {missing[kind]}", flush=True)
    kinds = [kind for kind in wanted if kind not in missing]
    rng = random.Random(options.seed)
    with target(rng) as hit:
        findings = list(run(hit, sequence(kinds, options.faults, rng)))
        ended = end(hit)
    report = summary(findings, ended, options.seed)
    print(json.dumps(report), flush=True)
    return int(report["violations"] != 0 or float(str(report["recovery_p95_s"])) > RECOVERY_S)


def enter_namespaces() -> None:
    """Restart this program in its own network and mount namespaces, where permitted."""
    probe = ["unshare", "--net", "--mount", "ip", "link", "set", "lo", "up"]
    if NAMESPACE_VARIABLE in os.environ:
        subprocess.run(probe[3:], check=True)
    elif shutil.which("unshare") and shutil.which("ip") and not subprocess.run(probe, capture_output=True).returncode:
        os.execvpe(
            "unshare",
            [*probe[:3], sys.executable, "-m", "endurance.chaos", *sys.argv[1:]],
            {**os.environ, NAMESPACE_VARIABLE: "1"},
        )


def sequence(kinds: Sequence[str], count: int, rng: random.Random) -> Iterator[str]:
    """Yield every kind equally often, reshuffled each round."""
    while count > 0:
        for kind in rng.sample(kinds, len(kinds))[:count]:
            yield kind
            count -= 1


@contextmanager
def target(rng: random.Random) -> Iterator[Target]:
    """Yield cameras and the program, once every camera is segmented."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, disk(Path(name)):
        folder = Path(name)
        clips = cameras(CAMERAS, FPS, rng, folder / "clips")
        settings = {camera: {**clip, "user": "viewer", "password": PASSWORD} for camera, clip in clips.items()}
        whole = Path(str(clips["cam00"]["file"]))
        shapes = (whole, encoded(whole, folder / "halved.mp4", FPS, size_px=(160, 128)))
        clock = folder / "clock"
        clock.write_text("+0")
        ports = free_ports(2)
        with receivers(folder) as sinks, RtspCameras(settings) as servers:
            watched: list[dict[str, object]] = [
                {"id": camera, "uri": servers.uri(camera), "pose": POSE} for camera in settings
            ]
            watched[-1]["transport"] = "udp"
            addresses = {"metrics": {"port": ports[0]}, "console": {"port": ports[1]}}
            sections = {"store": {"path": str(folder / STORE)}, "sinks": sinks.settings(), **addresses}
            config = write_site(folder, watched, **sections)
            to_pipe = ["sh", "-c", f'exec "$0" "$@" 2>{folder / "stderr"}']
            program = Running("run", config, command=[*to_pipe, *command(folder, clock)])
            stderr = LogPipe(folder / "stderr", program.lines)
            with program:
                hit = Target(
                    program, servers, folder / "run", folder / STORE, shapes, rng, ports, config, clock, stderr, sinks
                )
                if recovery_s(hit, dict.fromkeys(settings, 0)) >= LIMIT_S:
                    raise SystemExit("not every camera was segmented:\n" + "\n".join(program.lines[-20:]))
                yield hit


def command(folder: Path, clock: Path, program: Sequence[str] = DASNET) -> list[str]:
    """Return the command of the program with a wall clock offset by the content of a file."""
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(STEPPED_CLOCK.format(clock=str(clock)))
    paths = (str(folder / "python"), os.environ.get("PYTHONPATH", ""))
    return ["env", f"PYTHONPATH={os.pathsep.join(filter(None, paths))}", *program]


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Mount a small disk each for run folder, snapshots and store, where permitted."""
    places = (folder / "run", folder / "run" / "snapshots", (folder / STORE).parent)
    for place in places:
        place.mkdir()
        if NAMESPACE_VARIABLE in os.environ:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "chaos", place], check=True)
    try:
        yield
    finally:
        for place in reversed(places) if NAMESPACE_VARIABLE in os.environ else ():
            subprocess.run(["umount", "--lazy", place], check=True)


def run(hit: Target, kinds: Iterator[str]) -> Iterator[Finding]:
    opened = {name: descriptors(pids[0]) for name, pids in processes(hit.program).items()}
    for number, kind in enumerate(kinds, 1):
        before, start_s = accounts(hit.run_dir), time.monotonic()
        FAULTS[kind](hit)
        base = {name: account.segmented for name, account in accounts(hit.run_dir).items()}
        taken_s = recovery_s(hit, base)
        finding = Finding(kind, taken_s)
        if taken_s >= LIMIT_S:
            finding.violations.append(f"no recovery within {LIMIT_S:g} s")
        finding.violations += [*unbalanced(hit.run_dir), *events(hit.run_dir, hit.store), *leftovers(hit, opened)]
        finding.violations += hit.sinks.violations(hit.store)
        elapsed_s = time.monotonic() - start_s
        for name, account in accounts(hit.run_dir).items():
            grown = {cause: (ns - before[name].blind_ns[cause]) / 1e9 for cause, ns in account.blind_ns.items()}
            finding.violations += [
                f"{name}: blind by {cause} for {blind_s:.0f} of {elapsed_s:.0f} s"
                for cause, blind_s in grown.items()
                if blind_s > elapsed_s + SLACK_S
            ]
        print(f"{number} {kind}: {taken_s:.1f} s" + "".join(f"; {each}" for each in finding.violations), flush=True)
        if finding.violations:
            print("\n".join(f"    {line}" for line in hit.program.lines[-15:]), flush=True)
        yield finding
        if hit.program.process.poll() is not None:
            break


def recovery_s(hit: Target, base: dict[str, int]) -> float:
    """Wait until all workers run, every camera is up with two more frames segmented, and pages are served."""
    start_s = time.monotonic()
    workers = {"supervisor", "segmentation", "tracking", "console", *(f"capture-{name}" for name in base)}
    while (waited_s := time.monotonic() - start_s) < LIMIT_S:
        found = accounts(hit.run_dir)
        if (
            set(found) >= set(base)
            and all(found[name].up and found[name].segmented >= base[name] + 2 for name in base)
            and set(processes(hit.program)) >= workers
            and all(answers(port) for port in hit.ports)
        ):
            break
        time.sleep(0.1)
    return waited_s


def end(hit: Target) -> list[str]:
    """Stop the program and return what went wrong."""
    try:
        code = hit.program.stop(timeout_s=END_S)
        wrong = [f"at the end: exit code {code}"] if code else []
    except (AssertionError, subprocess.TimeoutExpired) as error:
        wrong = [f"at the end: {error}, exit code {hit.program.process.poll()}"]
    if wrong:
        print("\n".join(f"    {line}" for line in hit.program.lines[-15:]), flush=True)
    return wrong + [f"at the end: {fault}" for fault in [*unbalanced(hit.run_dir), *broken_clips(hit.run_dir)]]


def unbalanced(run_dir: Path) -> list[str]:
    readings = [accounts(run_dir) for _ in range(20)]
    wrong = {name for reading in readings for name, account in reading.items() if not account.balanced}
    return [f"{name}: ledger not balanced" for name in sorted(wrong)]


def leftovers(hit: Target, opened: dict[str, int]) -> list[str]:
    """Return processes and descriptors that stay; a starting process briefly looks like its parent."""
    deadline_s = time.monotonic() + LEFTOVER_S
    while (wrong := too_many(hit, opened)) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return wrong


def too_many(hit: Target, opened: dict[str, int]) -> list[str]:
    found = processes(hit.program)
    wrong = [f"{name}: {len(pids)} processes" for name, pids in found.items() if len(pids) > 1 or name not in opened]
    for name, pids in found.items():
        grown = descriptors(pids[0]) - opened.get(name, 0)
        if grown > SPARE_DESCRIPTORS:
            wrong.append(f"{name}: {grown} more descriptors")
    return wrong


def summary(findings: Sequence[Finding], ended: Sequence[str], seed: int) -> dict[str, object]:
    for each in ended:
        print(each, flush=True)
    by_kind = {}
    for kind in FAULTS:
        of_kind = [finding for finding in findings if finding.kind == kind]
        if of_kind:
            by_kind[kind] = {
                "faults": len(of_kind),
                "recovery_p95_s": round(percentile([finding.recovery_s for finding in of_kind], 0.95), 2),
                "violations": sum(len(finding.violations) for finding in of_kind),
            }
    timed = [finding.recovery_s for finding in findings if finding.kind not in SLOW]
    return {
        "seed": seed,
        "faults": len(findings),
        "violations": sum(len(finding.violations) for finding in findings) + len(ended),
        "recovery_p95_s": round(percentile(timed, 0.95), 2),
        "by_kind": by_kind,
    }


if __name__ == "__main__":
    sys.exit(main())
