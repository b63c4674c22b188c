"""From labelled frames to a checkpoint: `dasnet train CONFIG.yaml`, or `python3 -m training.train CONFIG.yaml`."""
