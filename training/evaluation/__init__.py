"""Evaluation: mask metrics, track metrics of clips, comparisons and their plots."""
