"""Training: labelled frames in, a checkpoint out: `dasnet train CONFIG.yaml`."""
