"""What a camera says of itself when it registers as a node of SAPIENT (BSI Flex 335 v2).  Pure."""

from sapient_msg.bsi_flex_335_v2_0 import location_pb2, range_bearing_pb2
from sapient_msg.bsi_flex_335_v2_0.registration_pb2 import Registration as Wire
from sapient_msg_pydantic.bsi_flex_335_v2_0.registration import (
    Capability,
    ClassDefinition,
    ConfigurationData,
    DetectionClassDefinition,
    DetectionDefinition,
    Duration,
    LocationType,
    ModeDefinition,
    NodeDefinition,
    RegionDefinition,
    Registration,
    StatusDefinition,
    SubClass,
    TaskDefinition,
)

from pipeline import __version__
from pipeline.types import Band

MODE = "default"
STATUS_S = 5.0  # between two reports
DEGREES = range_bearing_pb2.RANGE_BEARING_COORDINATE_SYSTEM_DEGREES_M
TRUE_NORTH = range_bearing_pb2.RANGE_BEARING_DATUM_TRUE
LAT_LON = location_pb2.LOCATION_COORDINATE_SYSTEM_LAT_LNG_DEG_M
WGS84 = location_pb2.LOCATION_DATUM_WGS84_E

# Class and subclasses of the standard's taxonomy; of a drone nobody knows which one it is.
TAXONOMY = {
    "uav": ("Air Vehicle", ("UAV Rotary Wing", "UAV Fixed Wing")),
    "airplane": ("Air Vehicle", ("Manned Fixed Wing",)),
    "helicopter": ("Air Vehicle", ("Manned Rotary Wing",)),
    "bird": ("Animal", ("Bird",)),
    "clutter": ("Other", ()),
    "unknown": ("Unknown", ()),
}


def registration(camera: str, band: Band | None, has_pose: bool) -> Registration:
    """Return the registration of a camera; one without a pose announces no place."""
    places = LocationType(location_units=LAT_LON, location_datum=WGS84) if has_pose else None
    return Registration(
        node_definition=[NodeDefinition(node_type=Wire.NODE_TYPE_CAMERA, node_sub_type=[band] if band else [])],
        name=f"dasnet {camera}",
        short_name=camera,
        capabilities=[Capability(category="Sensor", type="Video")],
        status_definition=StatusDefinition(
            status_interval=_seconds(STATUS_S),
            location_definition=places,
            field_of_view_definition=_bearings() if has_pose else None,
        ),
        mode_definition=[_mode()],
        config_data=[ConfigurationData(manufacturer="dasnet", model="dasnet", software_version=__version__)],
    )


def _mode() -> ModeDefinition:
    classes = DetectionClassDefinition(
        confidence_definition=Wire.CONFIDENCE_DEFINITION_SINGLE_CLASS, class_definition=_classes()
    )
    # A node must name a region that it could be given, even one that takes no tasks.
    region = RegionDefinition(region_type=[Wire.REGION_TYPE_AREA_OF_INTEREST], region_area=[_bearings()])
    return ModeDefinition(
        mode_name=MODE,
        mode_type=Wire.MODE_TYPE_PERMANENT,
        settle_time=_seconds(0),
        scan_type=Wire.SCAN_TYPE_FIXED,
        tracking_type=Wire.TRACKING_TYPE_TRACK,
        detection_definition=[
            DetectionDefinition(location_type=_bearings(), detection_class_definition=[classes]),
        ],
        task=TaskDefinition(concurrent_tasks=0, region_definition=region),
    )


def _bearings() -> LocationType:
    return LocationType(range_bearing_units=DEGREES, range_bearing_datum=TRUE_NORTH)


def _seconds(value: float) -> Duration:
    return Duration(units=Wire.TIME_UNITS_SECONDS, value=value)


def _classes() -> list[ClassDefinition]:
    subclasses: dict[str, list[str]] = {}
    for name, names in TAXONOMY.values():
        subclasses.setdefault(name, []).extend(names)
    return [
        ClassDefinition(type=name, sub_class=[SubClass(type=each, level=1) for each in names])
        for name, names in subclasses.items()
    ]
