"""From labelled clips to a checkpoint: `python3 -m training.train CONFIG.yaml`."""
