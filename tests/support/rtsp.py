"""RTSP cameras for tests, as a context manager around the process `rtsp_cameras.py`.

In: the cameras' settings.  Out: their addresses, and a way to freeze them or take them down.
"""

import json
import queue
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

PYTHON = "/usr/bin/python3"  # `gi` belongs to Debian's Python
SERVER = Path(__file__).with_name("rtsp_cameras.py")
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)
START_S = 20.0
ANSWER_S = 10.0


def missing_packages() -> str | None:
    """What to do before RTSP cameras can be served on this machine; None: nothing."""
    probe = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
        "from gi.repository import Gst; Gst.init(None); "
        "missing = [e for e in ('appsrc', 'rtph264pay', 'qtdemux', 'h264parse') if not Gst.ElementFactory.find(e)]; "
        "assert not missing, missing"
    )
    try:
        result = subprocess.run([PYTHON, "-c", probe], capture_output=True, text=True, timeout=START_S)
        if result.returncode == 0:
            return None
        reason = result.stderr.strip().rpartition("\n")[2]
    except FileNotFoundError:
        reason = f"{PYTHON} does not exist"
    return f"no RTSP server here ({reason}); run: apt-get install -y --no-install-recommends {PACKAGES}"


class RtspCameras:
    """`with RtspCameras({"cam0": {"file": "clip.mp4", "user": "u", "password": "p"}}) as cameras:`"""

    def __init__(self, cameras: Mapping[str, Mapping[str, str | int]]) -> None:
        self._cameras = cameras
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        problem = missing_packages()
        if problem:
            raise RuntimeError(problem)
        command = [PYTHON, str(SERVER), json.dumps({"cameras": self._cameras})]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.ports = json.loads(self._wait_for("READY ", START_S))
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def uri(self, name: str, password: str | None = None) -> str:
        """With the camera's own user and password, unless another password is given."""
        settings, authority = self._cameras[name], ""
        if "user" in settings:
            secret = str(settings["password"] if password is None else password)
            authority = f"{quote(str(settings['user']), safe='')}:{quote(secret, safe='')}@"
        return f"rtsp://{authority}127.0.0.1:{self.ports[name]}/stream"

    def command(self, line: str) -> None:
        """`freeze NAME`, `resume NAME`, `drop NAME N`, `lose NAME N`, `down NAME`, `up NAME`, `set NAME KEY VALUE`.

        Returns once it is done.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._wait_for(f"OK {line}", ANSWER_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _wait_for(self, prefix: str, timeout_s: float) -> str:
        while True:
            line = self._lines.get(timeout=timeout_s)
            if line is None:
                raise RuntimeError(f"the RTSP server ended (exit code {self._process.wait()})")
            if line.startswith(prefix):
                return line.removeprefix(prefix)
