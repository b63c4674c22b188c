"""Cameras and recordings in, frames on the credit channel out."""
