"""Alerting: tracks and camera states to events and snapshots."""
