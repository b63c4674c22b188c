"""Processes: supervisor, worker start-up, heartbeats, reload, logs."""
