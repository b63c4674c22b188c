"""Evidence of alerts: an append-only log of what happened, signed, so that a change or removal shows."""
