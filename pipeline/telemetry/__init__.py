"""Metrics, health and resource usage of the workers and of the host."""
