"""Metrics of the evidence log."""

from prometheus_client import CollectorRegistry, Gauge


class EvidenceMetrics:
    """How far the log is written and signed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.leaves = Gauge("dasnet_evidence_log_leaves", "Leaves of the evidence log.", registry=registry)
        self.bytes = Gauge("dasnet_evidence_log_bytes", "Size of the evidence log.", registry=registry)
        self.signed = Gauge(
            "dasnet_evidence_signed_head_timestamp_seconds",
            "Time of the evidence log's newest signed head.",
            registry=registry,
        )
