"""Segmentation stage: Frames -> Detections, batching and credit."""
