"""Training of the second-stage classifier."""
