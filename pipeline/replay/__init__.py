"""Offline processing: replay of recordings and prediction on images."""
