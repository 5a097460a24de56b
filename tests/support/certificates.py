"""Certificates for tests, made with the `openssl` command once a run."""

from __future__ import annotations

import functools
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONFIG = """
[ca]
default_ca = c
[c]
dir = {folder}
database = $dir/index
new_certs_dir = $dir
serial = $dir/serial
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
policy = p
copy_extensions = copy
x509_extensions = e
[e]
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
[p]
commonName = supplied
"""
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_PAST = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
_NOW = ["-days", "2"]


@dataclass(frozen=True)
class Certificates:
    """A CA and what it signed. Each name is a file `NAME.pem` with its `NAME.key` in `folder`.

    `server` is for localhost and 127.0.0.1, so is `expired`; `elsewhere` has another name.
    `client` is for a client.
    """

    folder: Path

    @property
    def ca(self) -> str:
        """The CA's certificate."""
        return str(self.folder / "ca.pem")

    def pair(self, name: str) -> tuple[str, str]:
        """Certificate and key."""
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def server_context(self, name: str = "server", *, demand_client: bool = False) -> ssl.SSLContext:
        """A server's context with the certificate `name`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair(name))
        if demand_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context


@functools.cache
def certificates() -> Certificates:
    """Make them; skips the test where there is no `openssl` command."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    folder = Path(tempfile.mkdtemp(prefix="gateway-certificates-"))
    (folder / "index").touch()
    (folder / "serial").write_text("1000")
    (folder / "ca.cnf").write_text(_CONFIG.format(folder=folder))
    _openssl(
        folder,
        "req",
        "-x509",
        *_KEY,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=test CA",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    _sign(folder, "server", "DNS:localhost,IP:127.0.0.1", _NOW)
    _sign(folder, "expired", "DNS:localhost,IP:127.0.0.1", _PAST)
    _sign(folder, "elsewhere", "DNS:elsewhere.test", _NOW)
    _sign(folder, "client", "DNS:client.test", _NOW)
    return Certificates(folder)


def _sign(folder: Path, name: str, names: str, validity: list[str]) -> None:
    extension = f"subjectAltName={names}"
    _openssl(
        folder, "req", "-new", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
        "-addext", extension,
    )  # fmt: skip
    _openssl(
        folder, "ca", "-batch", "-notext", "-config", "ca.cnf", "-in", f"{name}.csr", "-out", f"{name}.pem",
        *validity,
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
