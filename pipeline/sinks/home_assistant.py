"""Home Assistant's MQTT discovery: one device per camera.  Pure.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

import re
from typing import Any

from pipeline import __version__
from pipeline.types import EventKind

ON, OFF, ONLINE, OFFLINE = "ON", "OFF", "online", "offline"
_EVENT = (
    '{"event_type": "{{ value_json.kind }}", "severity": "{{ value_json.severity }}", "id": "{{ value_json.id }}", '
    '"label": "{{ value_json.track.label if value_json.track is defined else \'\' }}"}'
)


def device_id(topic: str, camera: str) -> str:
    """Return the id of a camera's device, unique on the broker as the topic is."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{topic}_{camera}")


def discovery(topic: str, camera: str) -> dict[str, Any]:
    """Return the discovery message of a camera: its alert, its state, its events and the last snapshot.

    Args:
        topic: the sink's first part of every topic.
        camera: the camera's id.
    """
    own, prefix = device_id(topic, camera), f"{topic}/{camera}"
    parts: dict[str, dict[str, Any]] = {
        "alert": {
            "platform": "binary_sensor",
            "name": "Alert",
            "device_class": "safety",
            "state_topic": f"{prefix}/alert",
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Camera",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": f"{prefix}/problem",
        },
        "event": {
            "platform": "event",
            "name": "Event",
            "event_types": [kind.value for kind in EventKind],
            "state_topic": f"{prefix}/event",
            "value_template": _EVENT,
        },
        "snapshot": {
            "platform": "image",
            "name": "Snapshot",
            "image_topic": f"{prefix}/snapshot",
            "content_type": "image/jpeg",
        },
    }
    for name, part in parts.items():
        part["unique_id"] = f"{own}_{name}"
    return {
        "device": {
            "identifiers": [own],
            "name": f"dasnet {camera}",
            "manufacturer": "dasnet",
            "sw_version": __version__,
        },
        "origin": {"name": "dasnet", "sw_version": __version__},
        "availability_topic": f"{topic}/status",
        "qos": 1,
        "components": parts,
    }
