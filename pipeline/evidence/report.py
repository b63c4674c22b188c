"""What a verification found.  Pure."""

from dataclasses import dataclass, field

from pipeline.evidence.times import utc


@dataclass
class Report:
    """What was found.

    Attributes:
        findings: one sentence for each fault; none: all fits.
        remarks: what is no fault, and yet to be known.
    """

    findings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    leaves: int = 0
    heads: int = 0
    files: int = 0
    events: int = 0
    signed_utc_ns: int = 0
    keys: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report as lines, the summary last."""
        signed = f", signed until {utc(self.signed_utc_ns)}" if self.signed_utc_ns else ""
        counts = f"{self.leaves} leaves, {self.heads} signed heads, {self.files} files, {self.events} events{signed}"
        verdict = f"{len(self.findings)} findings" if self.findings else "verified"
        keys = [f"signed by {key}" for key in self.keys]
        return [*self.findings, *self.remarks, *keys, f"{verdict}: {counts}"]
