"""Keys: from what a client presents to the tenant it belongs to."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from gateway import config
from gateway.errors import ModelNotAllowed, Unauthorized


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who a request is made for. `models` are those it may use (None: all).

    While several wait, a larger `weight` gets more turns, and a higher `priority` goes first.
    """

    name: str
    models: frozenset[str] | None = None
    weight: int = 1
    priority: int = 0

    def sees(self, model: str) -> bool:
        """Whether the tenant may use this model."""
        return self.models is None or model in self.models

    def require(self, model: str, asked: str) -> None:
        """Raise `ModelNotAllowed` for a model out of reach; `asked` is the name the client used."""
        if not self.sees(model):
            raise ModelNotAllowed(f"This key may not use the model {asked!r}.", param="model")


ANONYMOUS = Tenant("anonymous")
"""Everybody, where keys are off."""


class Keyring:
    """The configured keys. Holds digests only."""

    def __init__(self, keys: Sequence[config.Key]) -> None:
        self._keys = [
            (
                bytes.fromhex(key.digest),
                key.expires_at,
                Tenant(key.name, _models(key), key.weight, key.priority),
            )
            for key in keys
        ]

    def tenant(self, headers: Sequence[tuple[bytes, bytes]], now: datetime) -> Tenant:
        """Find whose key the request bears. Raises `Unauthorized`, every wrong key taking the same time."""
        presented = credential(headers)
        if presented is None:
            raise Unauthorized("missing")
        digest = sha256(presented).digest()
        found: tuple[datetime | None, Tenant] | None = None
        for known, expires, tenant in self._keys:
            if hmac.compare_digest(known, digest):
                found = (expires, tenant)
        if found is None:
            raise Unauthorized("wrong")
        if found[0] is not None and now >= found[0]:
            raise Unauthorized("expired")
        return found[1]


def credential(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The key a request bears: Bearer, else `x-api-key`, else the password of Basic.

    None where there is none, or where two Authorization headers leave it open which counts.
    """
    authorization = api_key = None
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                return None
            authorization = value
        elif name == b"x-api-key":
            if api_key is not None:
                return None
            api_key = value.strip()
    scheme, _, value = (authorization or b"").partition(b" ")
    if scheme.lower() == b"bearer" and value.strip():
        return value.strip()
    if api_key:
        return api_key
    return _password(value) if scheme.lower() == b"basic" else None


def _password(value: bytes) -> bytes | None:
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    # `http://KEY@host` puts the key where the user's name stands.
    return (password or user or None) if colon else None


def _models(key: config.Key) -> frozenset[str] | None:
    return None if key.models is None else frozenset(key.models)
