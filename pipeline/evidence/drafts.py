"""Drafts of the leaves of what the store holds: events and actions."""

import hashlib
from functools import partial

import msgspec

from pipeline.evidence.leaves import ActionLeaf, EventLeaf
from pipeline.evidence.log import Draft
from pipeline.store.actions import Action
from pipeline.types import Event


def event_draft(event: Event, payload: bytes | None) -> Draft:
    """Return the leaf of an event; retention may just have deleted its payload from the store."""
    return partial(
        EventLeaf,
        id=event.id,
        event=event.kind,
        camera=event.camera,
        event_utc_ns=event.time_utc_ns,
        sha256=hashlib.sha256(payload or msgspec.json.encode(event)).hexdigest(),
        alert=event.alert,
        ends_alert=event.ends_alert,
    )


def action_draft(payload: bytes) -> Draft:
    """Return the leaf of an action as it is stored."""
    action = msgspec.json.decode(payload, type=Action)
    return partial(
        ActionLeaf,
        id=action.id,
        action=action.kind,
        user=action.user,
        action_utc_ns=action.time_utc_ns,
        sha256=hashlib.sha256(payload).hexdigest(),
        address=action.address,
        alert=action.alert,
        detail=action.detail,
    )
