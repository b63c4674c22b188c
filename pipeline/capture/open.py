"""A camera or a recording in, decoded frames out.

`open_source` opens a configured camera by the scheme of its URI:
    rtsp://  rtsps://         a network camera; live
    http://  https://         a network camera that sends JPEGs; live
    sdp:PATH                  RTP, also multicast, by a session description; live
    v4l2:/dev/videoN          a device of this host; live
    file:PATH                 recordings: every frame, as fast as it is processed
    demo:scene?seed=3&fps=15  a procedural scene, paced like a live camera
    demo:clips/PATH?first=NAME  recordings in a loop, paced like a live camera, from the named one on
`file:`, `demo:clips/` and `sdp:` accept `?stream=1` (`&stream=1` after `?first=NAME`), the video stream to read.  So
does a network camera with several streams; its URI is sent to it unchanged.
`find_recordings` and `open_recording` are for replay.  All raise SourceError or CredentialsError, without any password.
"""

from pathlib import Path

from pipeline.capture import demo
from pipeline.capture.demo import DemoClips, DemoScene
from pipeline.capture.live import open_http, open_rtsp, open_sdp, open_v4l2
from pipeline.capture.recordings import (
    Playlist,
    find_recordings,
    frame_count,
    log_other_streams,
    open_recording,
    split_stream,
)
from pipeline.capture.source import DecodedFrame, Source
from pipeline.config.camera import Camera
from pipeline.config.uri import SCHEMES
from pipeline.errors import SourceError

__all__ = ["DecodedFrame", "Source", "find_recordings", "frame_count", "open_recording", "open_source"]


def open_source(camera: Camera) -> Source:
    """Open a camera.  Raise SourceError, or CredentialsError if the camera rejects user or password."""
    source = _open(camera)
    log_other_streams(source, camera=camera.id)
    return source


def _open(camera: Camera) -> Source:
    scheme, _, rest = camera.uri.partition(":")
    match scheme:
        case "rtsp" | "rtsps":
            return open_rtsp(camera)
        case "http" | "https":
            return open_http(camera)
        case "sdp":
            return open_sdp(camera)
        case "v4l2":
            return open_v4l2(camera)
        case "file":
            place, stream = split_stream(rest.removeprefix("//"))
            paths = find_recordings(Path(place))
            return open_recording(paths[0], stream=stream) if len(paths) == 1 else Playlist(paths, stream)
        case "demo":
            return _open_demo(camera, rest)
    raise SourceError(f"camera {camera.id}: unknown scheme; must be one of {', '.join(SCHEMES)}")


def _open_demo(camera: Camera, rest: str) -> Source:
    if rest.startswith("clips/"):
        return DemoClips(rest.removeprefix("clips/"))
    name, _, query = rest.partition("?")
    if name != "scene":
        raise SourceError(f"camera {camera.id}: unknown demo {name!r}; must be one of {demo.ACCEPTED}")
    return DemoScene(camera, query)
