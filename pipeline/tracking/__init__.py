"""Tracking: detections to tracks, and the worker that also raises and stores events."""
