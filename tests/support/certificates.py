"""Self-signed certificates for servers on loopback, by openssl."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


def made(folder: Path, name: str = "server") -> Certificate:
    files = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    _run([*command, "-keyout", files.key, "-out", files.certificate])
    return files


def expired(folder: Path) -> Certificate:
    """One that was valid in January 2020."""
    valid = made(folder, "expired")
    old, request, settings = folder / "old.pem", folder / "request.csr", folder / "ca.cnf"
    _run(["openssl", "x509", "-x509toreq", "-in", valid.certificate, "-signkey", valid.key, "-out", request])
    (folder / "db").touch()
    (folder / "serial").write_text("01")
    text = "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/db\nserial={0}/serial\nnew_certs_dir={0}\npolicy=p\n"
    settings.write_text(f"{text}x509_extensions=e\n[p]\nCN=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n".format(folder))
    command: list[str | Path] = [
        "openssl",
        "ca",
        "-batch",
        "-selfsign",
        "-config",
        settings,
        "-keyfile",
        valid.key,
        "-md",
        "sha256",
    ]
    _run([*command, "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-in", request, "-out", old])
    return Certificate(old, valid.key)


def _run(command: list[str | Path]) -> None:
    subprocess.run(command, check=True, capture_output=True)
