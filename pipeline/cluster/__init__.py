"""Cameras shared among several inference hosts: assignment, leases, and their log on NATS JetStream."""
