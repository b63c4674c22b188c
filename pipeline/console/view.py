"""What a user sees of alerts, events and files, where the user has the rights of some cameras only.

An alert whose target several cameras saw is seen by who sees any of them, without what the others recorded.
"""

import msgspec
from starlette.requests import Request

from pipeline.config.users import User
from pipeline.console.alert_path import AlertPath
from pipeline.console.security import address_of, user_of
from pipeline.console.status import Status
from pipeline.ids import ULID_LENGTH
from pipeline.store.actions import Actor
from pipeline.store.alert import Alert
from pipeline.store.history_reader import EventFilter, HistoryReader
from pipeline.types import Event

MAX_EVENTS = 1000  # of an alert, among which its snapshots are looked for


def actor_of(request: Request) -> Actor:
    """Return who sends a request, for the audit log."""
    return Actor(user_of(request).name, address_of(request))


def sees_alert(user: User, alert: Alert) -> bool:
    """Return whether a user sees an alert."""
    return user.sees(alert.camera) or any(user.sees(track.camera) for track in alert.tracks)


def shown_alert(alert: Alert, user: User) -> Alert:
    """Return an alert as a user sees it."""
    if user.cameras is None:
        return alert
    tracks = [track for track in alert.tracks if user.sees(track.camera)]
    if user.sees(alert.camera):
        return msgspec.structs.replace(alert, tracks=tracks)
    return msgspec.structs.replace(alert, tracks=tracks, snapshot=None, crop=None)


def shown_event(event: Event, user: User) -> Event:
    """Return an event of a camera that the user sees; its track may be of another one."""
    if event.track is None or user.sees(event.track.camera):
        return event
    return msgspec.structs.replace(event, track=None)


def shown_path(path: AlertPath, user: User) -> AlertPath:
    """Return the tracks of an alert that the user sees; nothing of one without such tracks."""
    if user.cameras is None:
        return path
    tracks = [track for track in path.tracks if user.sees(track.camera or path.camera)]
    return msgspec.structs.replace(path, tracks=tracks) if tracks else AlertPath("", [])


def shown_status(status: Status, user: User) -> Status:
    """Return a status with the configuration of the cameras that the user sees."""
    if user.cameras is None:
        return status
    cameras = [camera for camera in status.config["cameras"] if user.sees(camera["id"])]
    return msgspec.structs.replace(status, config=status.config | {"cameras": cameras})


def shows_snapshot(reader: HistoryReader, name: str, user: User) -> bool:
    """Return whether a snapshot or crop is one of a camera that the user sees."""
    events = reader.search_events(EventFilter(alert=name[:ULID_LENGTH], cameras=user.cameras), MAX_EVENTS)
    return any(name in (event.snapshot, event.crop) for event in events)
