"""The transport under httpx: where connections to a backend are made.

A seam of its own, so that the way bytes travel can change without anything above it noticing.
Environment proxies, redirects, cookies and content encodings are no part of it.
"""

from __future__ import annotations

import ssl

import httpx

Transport = httpx.AsyncBaseTransport
"""What carries requests to a backend; tests bring their own."""

KEEPALIVE = 3.0
"""Seconds an idle connection is kept: below the 5 s after which uvicorn, which serves all ChatGLM programs,
closes it, so that a request hardly ever meets a connection that is just being closed."""


def make_transport(
    *, slots: int, ca_file: str | None, cert_file: str | None, key_file: str | None
) -> Transport:
    """Make the transport of one backend. Certificates are always verified, TLS 1.2 at least."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    # Slots bound the requests; a probe may come beside them.
    limits = httpx.Limits(
        max_connections=slots + 2, max_keepalive_connections=slots + 2, keepalive_expiry=KEEPALIVE
    )
    return httpx.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False, retries=0)
