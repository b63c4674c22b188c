"""Training: labelled frames in, a checkpoint out (`dasnet train CONFIG.yaml`, `python3 -m training.train CONFIG.yaml`)."""
