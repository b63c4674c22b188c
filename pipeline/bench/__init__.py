"""`dasnet bench`: speed and accuracy of the inference engines on this machine."""
