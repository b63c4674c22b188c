"""The embedded store of events, tracks and alerts, its retention, and the cameras' ledgers."""
