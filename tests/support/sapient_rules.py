"""What the reference SAPIENT middleware (version 4.2, in its default configuration) refuses of a message.

Its rules are those that the standard's definitions bear as options: mandatory fields, forms of ids.  Beside them it
compares times, and a status that is said to be unchanged with the one before.
"""

import re
from collections.abc import Iterator
from typing import Any

UUID_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
VERSIONS = ("BSI Flex 335 v1.0", "BSI Flex 335 v2.0")
WINDOW_S = (-0.9, 0.1)
GAP_S = 0.08


class Rules:
    """The rules, and what they remember of each node."""

    def __init__(self) -> None:
        self._detected_s: dict[str, float] = {}
        self._system: dict[str, int] = {}

    def faults(self, message: Any, received_s: float) -> Iterator[str]:
        """Yield what is refused of a message, with its kind."""
        from sapient_msg_pydantic.bsi_flex_335_v2_0.sapient_message import SapientMessage as Model

        content = message.WhichOneof("content")
        try:
            Model.from_pb2(message)
        except ValueError as error:
            yield f"{content}: {error}"
        yield from _of_definitions(message, content)
        sent_s = message.timestamp.ToNanoseconds() / 1e9
        if not WINDOW_S[0] <= sent_s - received_s <= WINDOW_S[1]:
            yield f"{content}: time {sent_s - received_s:+.2f} s"
        if content == "registration":
            self._system.pop(message.node_id, None)
        elif content == "detection_report":
            before_s = self._detected_s.get(message.node_id, 0.0)
            self._detected_s[message.node_id] = sent_s
            if before_s != sent_s and sent_s - before_s < GAP_S:
                yield f"detection {sent_s - before_s:.3f} s after the one before"
        elif content == "status_report":
            yield from self._of_status(message.node_id, message.status_report)

    def _of_status(self, node: str, report: Any) -> Iterator[str]:
        if report.info == report.INFO_NEW:
            self._system[node] = report.system
        elif report.system != self._system.get(node):
            yield f"status_report: unchanged, with system {report.system} after {self._system.get(node)}"


def _of_definitions(message: Any, path: str) -> Iterator[str]:
    from google.protobuf.unknown_fields import UnknownFieldSet
    from sapient_msg import proto_options_pb2

    if len(UnknownFieldSet(message)):
        yield f"{path}: unknown fields"
    for group in message.DESCRIPTOR.oneofs:
        options = group.GetOptions().Extensions[proto_options_pb2.oneof_options]
        if options.is_mandatory and message.WhichOneof(group.name) is None:
            yield f"{path}: none of {group.name}"
    present: dict[Any, Any] = dict(message.ListFields())
    for field in message.DESCRIPTOR.fields:
        options = field.GetOptions().Extensions[proto_options_pb2.field_options]
        value: Any = present.get(field)
        place = f"{path}.{field.name}"
        if value is None:
            if options.is_mandatory:
                yield f"{place}: missing"
            continue
        form = UUID_4 if options.is_uuid else ULID if options.is_ulid else None
        if form is not None and not form.fullmatch(value):
            yield f"{place}: {value}"
        if field.name == "icd_version" and value not in VERSIONS:
            yield f"{place}: {value}"
        if field.enum_type is not None and isinstance(value, int) and value not in field.enum_type.values_by_number:
            yield f"{place}: {value}"
        if field.message_type is not None and field.message_type.full_name.startswith("sapient_msg."):
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _of_definitions(each, place)
