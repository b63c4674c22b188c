"""The tracks of this host's cameras, written for their next owners: the newest of each camera."""

import time

import structlog

from pipeline.cluster.connection import all_of
from pipeline.cluster.jetstream import JetStream
from pipeline.cluster.leases import Leases
from pipeline.cluster.publishing import Claim
from pipeline.errors import ClusterError

LAST_TRIES = 2  # the first may find that an answer was lost


class TrackWriter:
    """Holds what is not written yet.  Only `keep` is called by other threads."""

    def __init__(self, claims: dict[str, Claim], leases: Leases) -> None:
        self._claims, self._leases = claims, leases
        self._unsaved: dict[str, bytes] = {}
        self._log = structlog.get_logger()

    def keep(self, camera: str, tracks: bytes) -> None:
        """Take the newest tracks of a camera."""
        self._unsaved[camera] = tracks

    def forget(self, camera: str) -> None:
        """Leave the tracks of a camera unwritten: another host owns it."""
        self._unsaved.pop(camera, None)

    async def write_all(self, stream: JetStream) -> None:
        """Write what is not written yet.  Raise ClusterError."""
        await all_of(self._write(stream, camera) for camera in list(self._unsaved))

    async def write_last(self, stream: JetStream, camera: str) -> None:
        """Write the last tracks of a camera that is handed over, which goes on where that fails."""
        try:
            for _ in range(LAST_TRIES):
                await self._write(stream, camera)
        except ClusterError as error:
            self._log.warning("tracks not saved for the next owner", camera=camera, reason=str(error))

    async def _write(self, stream: JetStream, camera: str) -> None:
        """Write the newest tracks of a camera; where that fails they stay, unless there are newer ones."""
        claimed = self._claims.get(camera)
        if claimed is None:
            self.forget(camera)
            return
        async with claimed.writing_tracks:  # one after the other, each with the revision of the one before
            if camera not in self._unsaved or not self._leases.is_valid(time.monotonic()):
                return
            data, revision = self._unsaved.pop(camera), None
            try:
                revision = await stream.write_tracks(camera, data, claimed.tracks_revision)
                # None: an answer was lost, or another host owns the camera, which the next view shows.
                claimed.tracks_revision = revision or (await stream.tracks(camera)).revision
            finally:
                if revision is None and self._claims.get(camera) is claimed:
                    self._unsaved.setdefault(camera, data)
