"""Engines: the ways to run a network, behind one interface."""
