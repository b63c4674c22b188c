"""SQL statements that write the store, and those of retention."""

from pipeline.types import EventKind

# Not ON CONFLICT DO NOTHING, which would skip a row number: the backlog is a difference of row numbers.
INSERT_EVENT = """
INSERT INTO events (id, kind, severity, camera, time_utc_ns, alert, payload) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = ?1)
"""
UPSERT_TRACK = """
INSERT INTO tracks (ulid, camera, session, id, label, state, first_seen_utc_ns, last_seen_utc_ns, hits, score, alert,
payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (ulid) DO UPDATE SET label = excluded.label, state = excluded.state, hits = excluded.hits,
last_seen_utc_ns = excluded.last_seen_utc_ns, score = excluded.score, alert = coalesce(excluded.alert, alert),
payload = excluded.payload
"""
_NEW_ALERT = """
INSERT INTO alerts (id, camera, severity, label, opened_as, highest_severity, highest_label, rule, snapshot, crop,
opened_utc_ns, escalated_utc_ns, track, evidence, score, xyxy, last_seen_utc_ns, state)
VALUES (:id, :camera, :severity, :label, coalesce(:was, :label), :severity, :label, :rule, :snapshot, :crop,
:time, :escalated, :track, :evidence, :score, :xyxy, :seen, 'active') ON CONFLICT (id)
"""
OPEN_ALERT = f"{_NEW_ALERT} DO NOTHING"
# A store that was replaced meanwhile holds no such alert.
ESCALATE_ALERT = f"""
{_NEW_ALERT} DO UPDATE SET severity = :severity, label = :label, rule = :rule,
highest_severity = CASE :severity WHEN 'alarm' THEN :severity ELSE highest_severity END,
highest_label = CASE highest_label WHEN 'uav' THEN 'uav' ELSE :label END,
snapshot = coalesce(:snapshot, snapshot), crop = CASE WHEN :snapshot IS NULL THEN crop ELSE :crop END,
escalated_utc_ns = :time, ended_utc_ns = NULL, state = 'active', acknowledged_utc_ns = NULL
"""
LOWER_ALERT = "UPDATE alerts SET severity = :severity, label = :label WHERE id = :id"
END_ALERT = "UPDATE alerts SET state = 'ended', ended_utc_ns = :time WHERE id = :id AND state = 'active'"
# Of operators on other hosts; those on this one write them with the event: see `reviews`.
REVIEWS = {
    EventKind.ALERT_ACKNOWLEDGED: "UPDATE alerts SET acknowledged_utc_ns = :time WHERE id = :id",
    EventKind.ALERT_REVIEWED: """UPDATE alerts SET verdict = :verdict, note = :note,
        reviewed_utc_ns = CASE WHEN :verdict IS NULL THEN NULL ELSE :time END WHERE id = :id""",
    EventKind.ALERT_REOPENED: """UPDATE alerts SET verdict = NULL, note = NULL, reviewed_utc_ns = NULL,
        acknowledged_utc_ns = NULL WHERE id = :id""",
}
# A second camera's track is followed while the alert's own camera does not see the target.
FOLLOW_TRACK = """
UPDATE alerts SET track = ?1, evidence = ?2, score = ?3, xyxy = ?4, last_seen_utc_ns = ?5
WHERE id = (SELECT alert FROM tracks WHERE ulid = ?1) AND state = 'active' AND (CASE ?6 WHEN camera
THEN last_seen_utc_ns <= ?5 OR (SELECT tracks.camera FROM tracks WHERE tracks.ulid = alerts.track) != camera
ELSE last_seen_utc_ns <= ?5 - 1000000000
OR ((SELECT tracks.camera FROM tracks WHERE tracks.ulid = alerts.track) = ?6 AND last_seen_utc_ns <= ?5) END)
"""
ACTIVE_ALERTS = """
SELECT alerts.id, alerts.camera, alerts.last_seen_utc_ns, tracks.payload
FROM alerts LEFT JOIN tracks ON tracks.ulid = alerts.track WHERE alerts.state = 'active' ORDER BY alerts.opened_utc_ns
"""
END_ORPHANED_TRACKS = """
UPDATE tracks SET state = 'lost', payload = CAST(json_set(CAST(payload AS TEXT), '$.state', 'lost') AS BLOB)
WHERE state != 'lost'
"""
FORGET_SNAPSHOT = """
UPDATE alerts SET snapshot = nullif(snapshot, ?1), crop = nullif(crop, ?1) WHERE ?1 IN (snapshot, crop)
"""
UNACKNOWLEDGED = """
SELECT camera, highest_severity, count(*), min(coalesce(escalated_utc_ns, opened_utc_ns)) FROM alerts
WHERE acknowledged_utc_ns IS NULL GROUP BY camera, highest_severity
"""

# Retention.  An alert is open while it is active, not acknowledged, or pinned.
_KEEPS_CLIP = "(alerts.state = 'active' OR alerts.pinned_utc_ns IS NOT NULL)"
_OPEN = f"({_KEEPS_CLIP} OR alerts.acknowledged_utc_ns IS NULL)"
_MINUTE_NS = 60_000_000_000
SNAPSHOTS = f"SELECT id, snapshot, {_OPEN}, {_KEEPS_CLIP} FROM alerts"
EVENTS_BY_MINUTE = f"""
SELECT (time_utc_ns / {_MINUTE_NS} + 1) * {_MINUTE_NS}, count(*) FROM events WHERE row <= ?
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = events.alert AND {_OPEN}) GROUP BY 1
"""
TRACKS_BY_MINUTE = f"""
SELECT (last_seen_utc_ns / {_MINUTE_NS} + 1) * {_MINUTE_NS}, count(*) FROM tracks WHERE state = 'lost'
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = tracks.alert AND {_OPEN}) GROUP BY 1
"""
DELETE_ALERTS = f"""
DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE NOT {_OPEN} AND last_seen_utc_ns < ? LIMIT ?)
"""
DELETE_TRACKS = """
DELETE FROM tracks WHERE ulid IN (SELECT ulid FROM tracks WHERE state = 'lost' AND last_seen_utc_ns < ?
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = tracks.alert) LIMIT ?)
"""
DELETABLE_EVENTS = """
SELECT row FROM events WHERE time_utc_ns < ? AND (row <= ? OR time_utc_ns < ?)
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.id = events.alert) ORDER BY time_utc_ns LIMIT ?
"""
DELETE_ACTIONS = """
DELETE FROM actions WHERE row IN (SELECT row FROM actions WHERE time_utc_ns < ? ORDER BY row LIMIT ?)
"""
DELETE_EVENTS = "DELETE FROM events WHERE row = ?"

# Time of the first event; number of events; number and bytes of events since a time; number of alerts since that time.
ACTIVITY = """
SELECT (SELECT min(time_utc_ns) FROM events), (SELECT count(*) FROM events),
count(*), coalesce(sum(length(payload)), 0), (SELECT count(*) FROM alerts WHERE opened_utc_ns >= ?1)
FROM events WHERE time_utc_ns >= ?1
"""
