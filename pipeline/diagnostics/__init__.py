"""Diagnostics: checks of configuration, cameras and installation, live status, support bundle."""
