"""Keys: from what a client presents to the tenant it belongs to."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from gateway import config
from gateway.errors import ModelNotAllowed, Unauthorized

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Header fields as they came, names in lower case."""
Headers: TypeAlias = Mapping[bytes, bytes]
"""The same by name, the first of each."""


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


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that a keyring knows: whose it is, and until when, in Unix seconds."""

    keyring: Keyring
    presented: bytes = field(repr=False)  # no log may show it, whatever shows this
    expires: float
    tenant: Tenant


class Keyring:
    """The configured keys. Holds digests only."""

    def __init__(self, keys: Sequence[config.KeySettings]) -> None:
        self._keys = [
            (
                bytes.fromhex(key.digest),
                math.inf if key.expires_at is None else key.expires_at.timestamp(),
                Tenant(key.name, _models(key), key.weight, key.priority),
            )
            for key in keys
        ]

    def known(
        self, fields: Fields, headers: Headers, now: Callable[[], float], before: KnownKey | None = None
    ) -> KnownKey:
        """Find whose key the request bears; see `credential`. `now` is the wall clock, in Unix seconds.

        `before` is what was found on the same connection: the same key again needs no digest. Raises
        `Unauthorized`, every wrong key taking the same time.
        """
        presented = credential(fields, headers)
        if presented is None:
            raise Unauthorized("missing")
        found = before
        if found is None or found.keyring is not self or not hmac.compare_digest(found.presented, presented):
            found = self._find(presented)
        if found.expires != math.inf and now() >= found.expires:
            raise Unauthorized("expired")
        return found

    def _find(self, presented: bytes) -> KnownKey:
        digest = sha256(presented).digest()
        found: KnownKey | None = None
        for known, expires, tenant in self._keys:
            if hmac.compare_digest(known, digest):
                found = KnownKey(self, presented, expires, tenant)
        if found is None:
            raise Unauthorized("wrong")
        return found


_BEARING = (b"authorization", b"x-api-key", b"api-key")


def credential(fields: Fields, headers: Headers) -> bytes | None:
    """The key a request bears: Bearer, else `x-api-key`, else Azure's `api-key`, else the password of Basic.

    `headers` are the `fields` by name, the first of each. None where there is no key, or where two fields of
    one name leave it open which counts.
    """
    if len(headers) < len(fields) and any(
        sum(name == bearing for name, _ in fields) > 1 for bearing in _BEARING
    ):
        return None
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    scheme = scheme.lower()
    if scheme == b"bearer" and (token := value.strip()):
        return token
    if api_key := headers.get(b"x-api-key", b"").strip() or headers.get(b"api-key", b"").strip():
        return api_key
    return _password(value) if scheme == b"basic" else None


def _password(value: bytes) -> bytes | None:
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    # `http://KEY@host` puts the key where the user's name stands.
    return (password or user or None) if colon else None


def _models(key: config.KeySettings) -> frozenset[str] | None:
    return None if key.models is None else frozenset(key.models)
