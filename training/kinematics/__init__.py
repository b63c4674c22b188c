"""Fitting of the class evidence from motion."""
