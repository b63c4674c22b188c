"""Images: reading files, band, gain control, drawing, and synthetic scenes."""
