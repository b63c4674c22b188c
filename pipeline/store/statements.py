"""SQL statements that write the store, and those of retention."""

# Not ON CONFLICT DO NOTHING, which would skip a row number: the backlog is a difference of row numbers.
INSERT_EVENT = """
INSERT INTO events (id, kind, severity, camera, time_utc_ns, payload) SELECT ?1, ?2, ?3, ?4, ?5, ?6
WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = ?1)
"""
UPSERT_TRACK = """
INSERT INTO tracks (ulid, camera, session, id, label, state, first_seen_utc_ns, last_seen_utc_ns, hits, score, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (ulid) DO UPDATE SET label = excluded.label, state = excluded.state, hits = excluded.hits,
last_seen_utc_ns = excluded.last_seen_utc_ns, score = excluded.score, payload = excluded.payload
"""
# A second `track.confirmed` of a track updates its alert instead of opening another.
OPEN_ALERT = """
INSERT INTO alerts (id, track, camera, severity, snapshot, opened_utc_ns, label, evidence, score, xyxy,
last_seen_utc_ns, ended_utc_ns, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, 'active')
ON CONFLICT (track) DO UPDATE SET severity = excluded.severity, snapshot = coalesce(excluded.snapshot, snapshot),
label = excluded.label, evidence = excluded.evidence, score = excluded.score, xyxy = excluded.xyxy,
last_seen_utc_ns = excluded.last_seen_utc_ns, ended_utc_ns = NULL, state = 'active'
"""
UPDATE_ALERT = """
UPDATE alerts SET label = ?, evidence = ?, score = ?, xyxy = ?, last_seen_utc_ns = ?
WHERE track = ? AND state = 'active'
"""
END_ALERT = "UPDATE alerts SET state = 'ended', ended_utc_ns = ? WHERE (id = ? OR track = ?) AND state = 'active'"
END_ORPHANED_ALERTS = "UPDATE alerts SET state = 'ended', ended_utc_ns = last_seen_utc_ns WHERE state = 'active'"
END_ORPHANED_TRACKS = """
UPDATE tracks SET state = 'lost', payload = CAST(json_set(CAST(payload AS TEXT), '$.state', 'lost') AS BLOB)
WHERE state != 'lost'
"""
FORGET_SNAPSHOT = "UPDATE alerts SET snapshot = NULL WHERE snapshot = ?"

# Retention.  An alert is open while it is active or not acknowledged.
_OPEN = "(alerts.state = 'active' OR alerts.acknowledged_utc_ns IS NULL)"
_MINUTE_NS = 60_000_000_000
_TRACK_OF_EVENT = "json_extract(CAST(events.payload AS TEXT), '$.track.ulid')"
SNAPSHOTS = f"SELECT id, snapshot, {_OPEN}, state = 'active' FROM alerts"
EVENTS_BY_MINUTE = f"""
SELECT (time_utc_ns / {_MINUTE_NS} + 1) * {_MINUTE_NS}, count(*) FROM events WHERE row <= ?
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.track = {_TRACK_OF_EVENT} AND {_OPEN}) GROUP BY 1
"""
TRACKS_BY_MINUTE = f"""
SELECT (last_seen_utc_ns / {_MINUTE_NS} + 1) * {_MINUTE_NS}, count(*) FROM tracks WHERE state = 'lost'
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.track = tracks.ulid AND {_OPEN}) GROUP BY 1
"""
DELETE_ALERTS = f"""
DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE NOT {_OPEN} AND last_seen_utc_ns < ? LIMIT ?)
"""
DELETE_TRACKS = """
DELETE FROM tracks WHERE ulid IN (SELECT ulid FROM tracks WHERE state = 'lost' AND last_seen_utc_ns < ?
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.track = tracks.ulid) LIMIT ?)
"""
DELETABLE_EVENTS = f"""
SELECT row FROM events WHERE time_utc_ns < ? AND (row <= ? OR time_utc_ns < ?)
AND NOT EXISTS (SELECT 1 FROM alerts WHERE alerts.track = {_TRACK_OF_EVENT}) ORDER BY time_utc_ns LIMIT ?
"""
DELETE_EVENTS = "DELETE FROM events WHERE row = ?"

# Time of the first event; number of events; number and bytes of events since a time; number of alerts since that time.
ACTIVITY = """
SELECT (SELECT min(time_utc_ns) FROM events), (SELECT count(*) FROM events),
count(*), coalesce(sum(length(payload)), 0), (SELECT count(*) FROM alerts WHERE opened_utc_ns >= ?1)
FROM events WHERE time_utc_ns >= ?1
"""
