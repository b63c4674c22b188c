"""SAPIENT (BSI Flex 335 v2) messages of a camera.  Pure: no clock, no connection.

In: a camera's id and pose, tracks, events, times.  Out: messages as the standard's classes check them.  A bearing
has a range only while a second camera sees the target: one camera measures none.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from sapient_msg.bsi_flex_335_v2_0 import alert_pb2, status_report_pb2
from sapient_msg.bsi_flex_335_v2_0.task_ack_pb2 import TaskAck as WireTaskAck
from sapient_msg_pydantic.bsi_flex_335_v2_0.alert import Alert
from sapient_msg_pydantic.bsi_flex_335_v2_0.associated_detection import AssociatedDetection
from sapient_msg_pydantic.bsi_flex_335_v2_0.detection_report import (
    DetectionReport,
    DetectionReportClassification,
    SubClass,
)
from sapient_msg_pydantic.bsi_flex_335_v2_0.location import Location
from sapient_msg_pydantic.bsi_flex_335_v2_0.range_bearing import LocationOrRangeBearing, RangeBearing, RangeBearingCone
from sapient_msg_pydantic.bsi_flex_335_v2_0.sapient_message import SapientMessage
from sapient_msg_pydantic.bsi_flex_335_v2_0.status_report import Status, StatusReport
from sapient_msg_pydantic.bsi_flex_335_v2_0.task_ack import TaskAck

from pipeline.config.camera import Pose
from pipeline.geodesy import earth_fixed
from pipeline.ids import derived_ulid
from pipeline.sinks.camera_states import camera_state
from pipeline.sinks.cloudevents import iso_utc
from pipeline.sinks.sapient_registration import DEGREES, LAT_LON, MODE, TAXONOMY, TRUE_NORTH, WGS84, registration
from pipeline.types import Band, Bearing, Event, EventKind, Position, Severity, Track, Verdict

_Status = status_report_pb2.StatusReport
_Alert = alert_pb2.Alert
_TYPES = {
    Severity.ALARM: (_Alert.ALERT_TYPE_CRITICAL, _Alert.DISCRETE_PRIORITY_HIGH),
    Severity.WARNING: (_Alert.ALERT_TYPE_WARNING, _Alert.DISCRETE_PRIORITY_MEDIUM),
    Severity.INFO: (_Alert.ALERT_TYPE_INFORMATION, _Alert.DISCRETE_PRIORITY_LOW),
}
_SYSTEMS = {
    EventKind.CAMERA_UP: (_Status.SYSTEM_OK, _Status.STATUS_LEVEL_INFORMATION_STATUS),
    EventKind.CAMERA_BLIND: (_Status.SYSTEM_WARNING, _Status.STATUS_LEVEL_WARNING_STATUS),
    EventKind.CAMERA_DOWN: (_Status.SYSTEM_ERROR, _Status.STATUS_LEVEL_ERROR_STATUS),
}


@dataclass(frozen=True)
class Node:
    """A camera as a node of SAPIENT.

    Attributes:
        id: UUID, version 4, in lower case.
        camera: its name.
        band: of its images, or None where that is unknown.
        pose: where it stands and looks, or None where that is unknown.
    """

    id: str
    camera: str
    band: Band | None
    pose: Pose | None

    def message(self, time_ns: int, **content: object) -> bytes:
        """Return a message of this node as protobuf, from its only content, a model of the standard."""
        message = SapientMessage.model_validate({"timestamp": _time(time_ns), "node_id": self.id, **content})
        return bytes(message.to_pb2().SerializeToString())

    def registration(self, time_ns: int) -> bytes:
        """Return what the node says of itself before anything else."""
        return self.message(time_ns, registration=registration(self.camera, self.band, self.pose is not None))

    def status(self, camera_event: Event | None, is_new: bool, time_ns: int) -> bytes:
        """Return how the node is: as the newest event of its camera says."""
        pose = self.pose
        system, level = _SYSTEMS[camera_event.kind] if camera_event is not None else _SYSTEMS[EventKind.CAMERA_BLIND]
        status = []
        if system != _Status.SYSTEM_OK:
            text = camera_state(camera_event)
            status.append(Status(status_level=level, status_type=_Status.STATUS_TYPE_NOT_DETECTING, status_value=text))
        report = StatusReport(
            report_id=derived_ulid(time_ns, self.id, "status"),
            system=system,
            info=_Status.INFO_NEW if is_new else _Status.INFO_UNCHANGED,
            mode=MODE,
            node_location=_location(pose) if pose else None,
            field_of_view=_field_of_view(pose) if pose and pose.onvif is None else None,
            status=status,
        )
        return self.message(time_ns, status_report=report)

    def goodbye(self, time_ns: int) -> bytes:
        """Return the last message before the node disconnects."""
        report = StatusReport(
            report_id=derived_ulid(time_ns, self.id, "goodbye"),
            system=_Status.SYSTEM_GOODBYE,
            info=_Status.INFO_NEW,
            mode=MODE,
        )
        return self.message(time_ns, status_report=report)

    def detection(self, track: Track, bearing: Bearing) -> bytes:
        """Return where a track was seen, at the time of its frame, which all tracks of the frame share."""
        time_ns = track.last_seen.received_utc_ns
        report = DetectionReport(
            report_id=derived_ulid(time_ns, track.ulid, str(track.last_seen.seq)),
            object_id=track.ulid,
            range_bearing=self._range_bearing(bearing, track.position),
            detection_confidence=track.score,
            classification=[_classification(track)],
        )
        return self.message(time_ns, detection_report=report)

    def alert(self, event: Event, time_ns: int) -> bytes:
        """Return an event of an alert, sent at `time_ns`; its own time is in the text."""
        kind, priority = _TYPES[event.severity]
        track = event.track
        label = f"{track.label}, track {track.id}, " if track is not None else ""
        occurred = event.time_utc or iso_utc(event.time_utc_ns)
        alert = Alert(
            alert_id=event.alert,
            alert_type=kind,
            status=_alert_status(event),
            description=f"{label}{self.camera}: {event.kind.partition('.')[2]} at {occurred}",
            range_bearing=self._range_bearing(track.bearing, track.position) if track and track.bearing else None,
            priority=priority,
            confidence=track.score if track is not None else None,
            associated_detection=[AssociatedDetection(node_id=self.id, object_id=track.ulid)] if track else [],
            additional_information=f"event {event.id}, {event.kind}, {occurred}",
        )
        return self.message(time_ns, alert=alert)

    def task_rejected(self, task_id: str, time_ns: int) -> bytes:
        """Return the answer to a task: none is supported."""
        rejected = TaskAck(
            task_id=task_id, task_status=WireTaskAck.TASK_STATUS_REJECTED, reason=["this node takes no tasks"]
        )
        return self.message(time_ns, task_ack=rejected)

    def _range_bearing(self, bearing: Bearing, position: Position | None) -> RangeBearing:
        range_m = error_m = None
        if position is not None and self.pose is not None:
            here = earth_fixed(self.pose.lat, self.pose.lon, self.pose.height_m)
            there = earth_fixed(position.lat, position.lon, position.height_m)
            range_m = round(math.dist(here, there), 1)
            error_m = max(position.horizontal_sigma_m, position.height_sigma_m)  # in no direction is it larger
        return RangeBearing(
            azimuth=bearing.azimuth_deg,
            elevation=bearing.elevation_deg,
            range=range_m,
            azimuth_error=bearing.azimuth_sigma_deg,
            elevation_error=bearing.elevation_sigma_deg,
            range_error=error_m,
            coordinate_system=DEGREES,
            datum=TRUE_NORTH,
        )


def _classification(track: Track) -> DetectionReportClassification:
    name, names = TAXONOMY[track.label]
    return DetectionReportClassification(
        type=name, confidence=track.score, sub_class=[SubClass(type=each, level=1) for each in names]
    )


def _alert_status(event: Event) -> "_Alert.AlertStatus":
    if event.ends_alert:
        return _Alert.ALERT_STATUS_CLEAR
    if event.kind is EventKind.ALERT_REVIEWED and event.verdict not in (None, Verdict.UAV):
        return _Alert.ALERT_STATUS_REJECT
    if event.kind in (EventKind.ALERT_ACKNOWLEDGED, EventKind.ALERT_REVIEWED):
        return _Alert.ALERT_STATUS_ACKNOWLEDGE
    return _Alert.ALERT_STATUS_ACTIVE


def _location(pose: Pose) -> Location:
    height_m = pose.height_m if "height_m" in pose.model_fields_set else None
    return Location(x=pose.lon, y=pose.lat, z=height_m, coordinate_system=LAT_LON, datum=WGS84)


def _field_of_view(pose: Pose) -> LocationOrRangeBearing:
    cone = RangeBearingCone(
        azimuth=pose.azimuth_deg,
        elevation=pose.elevation_deg,
        azimuth_error=pose.sigma_deg,
        elevation_error=pose.sigma_deg,
        horizontal_extent=pose.hfov_deg,
        coordinate_system=DEGREES,
        datum=TRUE_NORTH,
    )
    return LocationOrRangeBearing(range_bearing=cone)


def _time(time_ns: int) -> datetime:
    """Return a time to the microsecond, which is all that the standard's classes take."""
    seconds, ns = divmod(time_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1000)
