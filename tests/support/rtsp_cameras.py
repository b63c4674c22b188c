#!/usr/bin/python3
"""Fake IP cameras: looped H.264, H.265 or MJPEG clips without B-frames over RTSP, by GStreamer.  See `rtsp.py`.

In: argv[1], JSON: {"host": "127.0.0.1", "cameras": {"cam0": {"file": PATH, "fps": 30, "user": TEXT, "password": TEXT,
    "transport": "tcp|udp|any", "times": PATH}}}; user, transport and times may be left out.  To `times` go the number
    of each access unit in the clip and when it was sent, UTC in ns, a line each.  Then commands, one a line, on
    standard input:
    freeze NAME   the camera stalls, the connection stays        resume NAME
    drop NAME N   the next N access units are lost
    lose NAME N   the packets of the next N slices are lost on the way: their numbers are missing
    down NAME     clients are cut off, the port is closed        up NAME     the same port again
    set NAME KEY VALUE   another setting (file, fps, user, password), from the next `up` on
Out: "READY {"cam0": PORT}" once all can be reached at rtsp://HOST:PORT/stream, then "OK COMMAND" as each is done.
The end of standard input ends it, so that it cannot outlive the test.  Runs with Debian's Python, which has `gi`.
"""

import json
import sys
import threading
import time
from pathlib import Path

import gi

for namespace in ("Gst", "GstApp", "GstRtsp", "GstRtspServer"):
    gi.require_version(namespace, "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtsp, GstRtspServer  # noqa: E402, F401 (GstApp types the elements)

Gst.init(None)

DEMUXERS = {".mp4": "qtdemux", ".mov": "qtdemux", ".mkv": "matroskademux", ".ts": "tsdemux"}
CAPS = {
    "h264": "video/x-h264,stream-format=byte-stream,alignment=au",
    "h265": "video/x-h265,stream-format=byte-stream,alignment=au",
    "jpeg": "image/jpeg",
}
OPTIONS = {"h264": "config-interval=-1", "h265": "config-interval=-1", "jpeg": ""}  # of the parser
ROLE = "viewer"


def access_units(path: Path) -> tuple[str, list[bytes]]:
    """The codec (h264 | h265 | jpeg) and all access units of a clip."""
    demuxer = DEMUXERS.get(path.suffix)
    if demuxer is None:
        raise SystemExit(f"{path}: unknown container; must be of {', '.join(DEMUXERS)}")
    for codec, caps in CAPS.items():
        pipeline = Gst.parse_launch(
            f'filesrc location="{path}" ! {demuxer} ! {codec}parse ! appsink name=sink sync=false caps="{caps}"'
        )
        units = drain(pipeline)
        if units:
            return codec, units
    raise SystemExit(f"{path}: holds no H.264, H.265 or MJPEG")


def drain(pipeline: Gst.Pipeline) -> list[bytes]:
    """All buffers that reach the sink; none if the pipeline cannot run (another codec)."""
    sink, bus = pipeline.get_by_name("sink"), pipeline.get_bus()
    pipeline.set_state(Gst.State.PLAYING)
    units = []
    while True:
        sample = sink.emit("try-pull-sample", Gst.SECOND // 20)
        if sample is not None:
            buffer = sample.get_buffer()
            units.append(buffer.extract_dup(0, buffer.get_size()))
        elif bus.pop_filtered(Gst.MessageType.ERROR | Gst.MessageType.EOS):
            break
    pipeline.set_state(Gst.State.NULL)
    return units


class Feed:
    """Pushes one media's access units at the camera's rate, for ever, beginning with the clip's first keyframe."""

    def __init__(self, camera: "Camera", source: Gst.Element) -> None:
        self.camera, self.source = camera, source
        self.step_ns = Gst.SECOND // camera.fps
        self.count = 0
        self.first_ns: int | None = None
        self.stopped = False

    def push_due(self) -> bool:
        """Called often by the main loop; False ends that."""
        if self.stopped:
            return False
        state, clock = self.source.current_state, self.source.get_clock()
        if clock is None or state not in (Gst.State.PAUSED, Gst.State.PLAYING):
            return True
        playing = state == Gst.State.PLAYING
        now_ns = clock.get_time() - self.source.get_base_time() if playing else 0
        if self.first_ns is None:
            self.first_ns = now_ns
        if self.camera.frozen:
            self.first_ns = now_ns - self.count * self.step_ns  # so that nothing is caught up with afterwards
            return True
        while self.first_ns + self.count * self.step_ns <= now_ns:
            if not self.push():
                return False
            if not playing:
                break  # one unit is enough for the media to get ready
        return True

    def push(self) -> bool:
        number = self.count % len(self.camera.units)
        buffer = Gst.Buffer.new_wrapped(self.camera.units[number])
        buffer.pts = buffer.dts = (self.first_ns or 0) + self.count * self.step_ns
        buffer.duration = self.step_ns
        self.count += 1
        if self.camera.units_to_drop > 0:
            self.camera.units_to_drop -= 1
            return True
        if self.camera.times is not None:
            self.camera.times.write(f"{number} {time.time_ns()}\n")
        return bool(self.source.emit("push-buffer", buffer) == Gst.FlowReturn.OK)

    def stop(self, _media: GstRtspServer.RTSPMedia) -> None:
        self.stopped = True


class Camera:
    """One camera on a port of its own: mixed authentication on one server answers 404, and each can go down alone."""

    def __init__(self, host: str, settings: dict[str, str | int]) -> None:
        self.host, self.settings = host, settings
        self.frozen, self.units_to_drop, self.slices_to_lose = False, 0, 0
        times = settings.get("times")
        self.times = Path(str(times)).open("w", buffering=1) if times else None  # noqa: SIM115
        self.port = 0  # any, and from then on the same
        self.up()

    def up(self) -> None:
        self.fps = int(self.settings.get("fps", 30))
        self.codec, self.units = access_units(Path(str(self.settings["file"])))
        self.server = GstRtspServer.RTSPServer(address=self.host, service=str(self.port))
        factory = self.factory()
        if "user" in self.settings:
            self.require_password(factory)
        self.server.get_mount_points().add_factory("/stream", factory)
        self.listener = self.server.attach(None)
        if not self.listener:
            raise SystemExit(f"cannot listen on {self.host}:{self.port}")
        self.port = self.server.get_bound_port()

    def down(self) -> None:
        self.server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
        GLib.source_remove(self.listener)
        del self.server  # closes the port

    def factory(self) -> GstRtspServer.RTSPMediaFactory:
        kinds = GstRtsp.RTSPLowerTrans
        transports = {"tcp": kinds.TCP, "udp": kinds.UDP, "any": kinds.TCP | kinds.UDP}
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_protocols(transports[str(self.settings.get("transport", "any"))])
        factory.set_shared(True)  # all clients see the same moment, as with a real camera
        factory.set_launch(
            f"( appsrc name=source is-live=true format=time block=false ! {self.codec}parse {OPTIONS[self.codec]} ! "
            f"rtp{self.codec}pay name=pay0 pt=96 mtu=1400 )"
        )
        factory.connect("media-configure", self.configure)
        return factory

    def configure(self, _factory: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_child_by_name("source")
        source.set_property("caps", Gst.Caps.from_string(f"{CAPS[self.codec]},framerate={self.fps}/1"))
        kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        media.get_element().get_child_by_name("pay0").get_static_pad("src").add_probe(kinds, self.lose)
        feed = Feed(self, source)
        media.connect("unprepared", feed.stop)
        GLib.timeout_add(max(5, 500 // self.fps), feed.push_due)

    def lose(self, _pad: Gst.Pad, _info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if self.slices_to_lose == 0:
            return Gst.PadProbeReturn.OK
        self.slices_to_lose -= 1
        return Gst.PadProbeReturn.DROP

    def require_password(self, factory: GstRtspServer.RTSPMediaFactory) -> None:
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token.set_string("media.factory.role", ROLE)
        auth.add_digest(self.settings["user"], self.settings["password"], token)
        role = Gst.Structure.new_empty(ROLE)
        role.set_value("media.factory.access", True)
        role.set_value("media.factory.construct", True)
        factory.add_role_from_structure(role)
        self.server.set_auth(auth)


def obey(line: str, cameras: dict[str, Camera]) -> None:
    verb, name, *rest = line.split(maxsplit=3)
    camera = cameras[name]
    if verb in ("freeze", "resume"):
        camera.frozen = verb == "freeze"
    elif verb == "drop":
        camera.units_to_drop = int(rest[0])
    elif verb == "lose":
        camera.slices_to_lose = int(rest[0])
    elif verb in ("down", "up"):
        getattr(camera, verb)()
    elif verb == "set":
        camera.settings[rest[0]] = rest[1]
    else:
        raise SystemExit(f"unknown command {verb!r}; must be of freeze, resume, drop, lose, down, up, set")
    print("OK", line, flush=True)


def main() -> None:
    settings = json.loads(sys.argv[1])
    host = settings.get("host", "127.0.0.1")
    cameras = {name: Camera(host, each) for name, each in settings["cameras"].items()}
    loop = GLib.MainLoop()

    def read_commands() -> None:
        for line in sys.stdin:
            if line.strip():
                GLib.idle_add(obey, line.strip(), cameras)
        GLib.idle_add(loop.quit)

    threading.Thread(target=read_commands, daemon=True).start()
    print("READY", json.dumps({name: camera.port for name, camera in cameras.items()}), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
