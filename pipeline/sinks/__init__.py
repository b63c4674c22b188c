"""Sinks: destinations of events outside the program, and the outbox that serves them."""
