"""Training of the judge of chips (`model.judge`)."""
