"""Simulation of a site: what latency, drops and revisit times to expect of so many cameras on so many machines."""
