"""The Containerfile's steps, run in a Debian root made by debootstrap: what a container engine would do, without one.

`slow`: it installs everything anew.  It differs from the image in where Python comes from (Debian's, of the same
release) and in torch's index, which not every machine reaches: torch comes from pip's own.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.program import REPOSITORY

CONTAINERFILE = REPOSITORY / "deploy" / "Containerfile"
PACKAGES = "python3,python3-venv,ca-certificates"
USER = "10001:10001"  # the image's

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("debootstrap"), reason="needs root and the package debootstrap"
    ),
]


def stage(name: str) -> list[str]:
    """Instructions of a stage and those that it is built from, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", CONTAINERFILE.read_text())
    stages: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            base, current = match[1], match[2]
            stages[current] = list(stages.get(base, []))
        elif line and not line.startswith("#"):
            stages[current].append(line)
    return stages[name]


class Root:
    """A Debian in a folder, with this machine's names, certificates and package sources."""

    def __init__(self, folder: Path, mounts: ExitStack) -> None:
        self.folder = folder
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(folder)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for file in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(file).exists():
                shutil.copy(file, folder / file.lstrip("/"))
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        self.environment |= {
            key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or key.startswith("PIP_")
        }
        said = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
        local = set(re.findall(r"(?<![\w/])/(?:opt|srv|var)/[\w./-]+", said))  # folders that pip takes packages from
        for place in ["/proc", "/dev", *sorted(path for path in local if Path(path).is_dir())]:
            inside = folder / place.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", place, str(inside)], check=True)
            mounts.callback(subprocess.run, ["umount", "-l", str(inside)], check=True)

    def run(self, command: str, user: str = "0:0", cwd: str = "/") -> str:
        inside = ["chroot", f"--userspec={user}", str(self.folder), "sh", "-euc", f"cd {cwd}; {command}"]
        done = subprocess.run(inside, capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        return done.stdout


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with ExitStack() as mounts:
        yield Root(tmp_path / "root", mounts)


def test_the_image_s_steps_give_a_program_that_runs_as_its_user(root: Root):
    cwd = "/"
    root.run("ln -sf python3 /usr/bin/python")
    for line in stage("build-cpu"):
        word, _, rest = line.partition(" ")
        if word == "RUN":
            root.run(re.sub(r" --index-url \S+", "", rest), cwd=cwd)
        elif word == "COPY":
            *sources, target = rest.split()
            to = root.folder / cwd.lstrip("/")
            for source in sources:
                if (REPOSITORY / source).is_dir():
                    kept = shutil.ignore_patterns("__pycache__", "lib")
                    shutil.copytree(REPOSITORY / source, to / target, ignore=kept)
                else:
                    shutil.copy(REPOSITORY / source, to)
        elif word == "WORKDIR":
            cwd = rest
            (root.folder / cwd.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            root.environment |= dict(pair.split("=", 1) for pair in rest.split())
        else:
            raise AssertionError(f"the test does not know {word}")
    # Sources and compiler stay behind, as in the image's last stage.
    shutil.rmtree(root.folder / "src")
    for command in [line.removeprefix("RUN ") for line in stage("cpu") if line.startswith("RUN ")]:
        root.run(command)
    home = "/var/lib/dasnet"
    root.run(f"chown {USER} {home}")
    said = root.run("HOME=/var/lib/dasnet /opt/dasnet/bin/dasnet doctor", user=USER, cwd=home)
    assert "all requirements are met" in said and "engine on the CPU: native" in said
    libraries = root.run("ls /opt/dasnet/lib/python3.*/site-packages/model/native/lib")
    assert all(form in libraries for form in ("avx2", "avx512-", "avx512bf16")), "it may run on another processor"
    (root.folder / home.lstrip("/") / "clip.mp4").write_bytes(
        (REPOSITORY / "tests" / "data" / "clips" / "IR_DRONE_015.mp4").read_bytes()
    )
    replay = f"HOME={home} /opt/dasnet/bin/dasnet replay clip.mp4 --out out --end 6"
    root.run(replay, user=USER, cwd=home)
    assert (root.folder / home.lstrip("/") / "out" / "clip" / "annotated.mp4").stat().st_size > 0
