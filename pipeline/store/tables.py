"""The store's tables, and how those of older versions become them."""

VERSION = 8

# AUTOINCREMENT: a row number is never reused, not even after the newest event was deleted, since the sinks' cursors are
# row numbers.
_ALERTS = """
CREATE TABLE alerts (
    id TEXT PRIMARY KEY,
    track TEXT NOT NULL,
    camera TEXT NOT NULL,
    severity TEXT NOT NULL,
    label TEXT NOT NULL,
    opened_as TEXT NOT NULL,
    highest_severity TEXT NOT NULL,
    highest_label TEXT NOT NULL,
    evidence TEXT NOT NULL,
    score REAL NOT NULL,
    xyxy TEXT NOT NULL,
    snapshot TEXT,
    crop TEXT,
    opened_utc_ns INTEGER NOT NULL,
    last_seen_utc_ns INTEGER NOT NULL,
    escalated_utc_ns INTEGER,
    ended_utc_ns INTEGER,
    state TEXT NOT NULL,
    acknowledged_utc_ns INTEGER,
    verdict TEXT,
    note TEXT,
    reviewed_utc_ns INTEGER
);
"""
_INDICES = """
CREATE INDEX tracks_by_alert ON tracks (alert) WHERE alert IS NOT NULL;
CREATE INDEX alerts_by_time ON alerts (opened_utc_ns);
CREATE INDEX alerts_active ON alerts (state) WHERE state = 'active';
CREATE INDEX alerts_unacknowledged ON alerts (camera) WHERE acknowledged_utc_ns IS NULL;
"""
# For the history: alerts are filtered in the index alone, whatever their number.
_HISTORY = """
DROP INDEX IF EXISTS alerts_by_time;
CREATE INDEX IF NOT EXISTS alerts_by_time ON alerts
(opened_utc_ns, id, camera, label, highest_label, highest_severity, verdict, acknowledged_utc_ns, state);
CREATE INDEX IF NOT EXISTS events_by_camera ON events (camera);
CREATE INDEX IF NOT EXISTS events_by_alert ON events (alert) WHERE alert IS NOT NULL;
CREATE INDEX IF NOT EXISTS camera_states ON events (camera, time_utc_ns)
WHERE kind IN ('camera.up', 'camera.down', 'camera.blind');
"""
_PINS = "ALTER TABLE alerts ADD COLUMN pinned_utc_ns INTEGER;\n"
_RULES = "ALTER TABLE alerts ADD COLUMN rule TEXT;\n"
_ACTIONS = """
CREATE TABLE IF NOT EXISTS actions (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    time_utc_ns INTEGER NOT NULL,
    user TEXT NOT NULL,
    kind TEXT NOT NULL,
    alert TEXT,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS actions_by_time ON actions (time_utc_ns);
"""
TABLES = f"""
CREATE TABLE events (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    camera TEXT NOT NULL,
    time_utc_ns INTEGER NOT NULL,
    alert TEXT,
    payload BLOB NOT NULL
);
CREATE INDEX events_by_time ON events (time_utc_ns);
CREATE TABLE tracks (
    ulid TEXT PRIMARY KEY,
    camera TEXT NOT NULL,
    session TEXT NOT NULL,
    id INTEGER NOT NULL,
    label TEXT NOT NULL,
    state TEXT NOT NULL,
    first_seen_utc_ns INTEGER NOT NULL,
    last_seen_utc_ns INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    score REAL NOT NULL,
    alert TEXT,
    payload BLOB NOT NULL
);
CREATE INDEX tracks_by_time ON tracks (last_seen_utc_ns);
CREATE INDEX tracks_alive ON tracks (state) WHERE state != 'lost';
{_ALERTS}
{_PINS}
{_RULES}
{_INDICES}
{_HISTORY}
{_ACTIONS}
CREATE TABLE cursors (sink TEXT PRIMARY KEY, row INTEGER NOT NULL);
"""
MIGRATIONS = {  # from this version to the next
    1: """
ALTER TABLE alerts ADD COLUMN acknowledged_utc_ns INTEGER;
ALTER TABLE alerts ADD COLUMN dismissed_utc_ns INTEGER;
ALTER TABLE alerts ADD COLUMN dismissed_as TEXT;
""",
    2: "CREATE INDEX IF NOT EXISTS events_by_time ON events (time_utc_ns);",
    # An alert was one track; its label followed the track, its severity stayed as it was opened.
    3: f"""
ALTER TABLE alerts RENAME TO tracked;
DROP INDEX alerts_by_time;
DROP INDEX alerts_active;
{_ALERTS}
INSERT INTO alerts SELECT id, track, camera, CASE label WHEN 'uav' THEN 'alarm' ELSE severity END, label,
CASE severity WHEN 'alarm' THEN 'uav' ELSE 'unknown' END, CASE label WHEN 'uav' THEN 'alarm' ELSE severity END,
CASE WHEN severity = 'alarm' OR label = 'uav' THEN 'uav' ELSE 'unknown' END, evidence, score, xyxy, snapshot, NULL,
opened_utc_ns, last_seen_utc_ns, NULL, ended_utc_ns, state, acknowledged_utc_ns, dismissed_as, NULL, dismissed_utc_ns
FROM tracked;
ALTER TABLE events ADD COLUMN alert TEXT;
ALTER TABLE tracks ADD COLUMN alert TEXT;
UPDATE events SET alert =
(SELECT id FROM tracked WHERE tracked.track = json_extract(CAST(events.payload AS TEXT), '$.track.ulid'));
UPDATE tracks SET alert = (SELECT id FROM tracked WHERE tracked.track = tracks.ulid);
DROP TABLE tracked;
{_INDICES}
""",
    4: _PINS,
    5: f"""
{_RULES}
UPDATE alerts SET rule = json_extract(CAST(events.payload AS TEXT), '$.rule')
FROM events WHERE events.alert = alerts.id AND events.kind = 'alert.opened';
""",
    6: _HISTORY,
    7: _ACTIONS,
}
