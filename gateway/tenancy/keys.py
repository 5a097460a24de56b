"""Finds the tenant that a presented key belongs to."""

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
"""Header fields in the order received, with names in lower case."""
Headers: TypeAlias = Mapping[bytes, bytes]
"""The header fields by name; for a repeated name the first field."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """The owner of a request. `models` are the models the tenant may use (None: all).

    While several tenants wait, a tenant with a larger `weight` gets more turns, and a higher `priority` is
    served first.
    """

    name: str
    models: frozenset[str] | None = None
    weight: int = 1
    priority: int = 0

    def sees(self, model: str) -> bool:
        """Return True if the tenant may use this model."""
        return self.models is None or model in self.models

    def require(self, model: str, asked: str) -> None:
        """Raise `ModelNotAllowed` if the tenant may not use `model`; `asked` is the name the client sent."""
        if not self.sees(model):
            raise ModelNotAllowed(f"This key may not use the model {asked!r}.", param="model")


ANONYMOUS = Tenant("anonymous")
"""The tenant of every request if keys are off."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key found in a keyring: its tenant, and when it expires, in Unix seconds."""

    keyring: Keyring
    presented: bytes = field(repr=False)  # no log may contain it, even if it prints this object
    expires: float
    tenant: Tenant


class Keyring:
    """The configured keys. It stores only their digests."""

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
        """Find the key that a request presents (see `credential`).

        `now` returns the wall clock in Unix seconds. `before` is the key found earlier on the same
        connection; if the request presents the same key, no digest is computed. Raises `Unauthorized` if
        the key is missing, wrong or expired. All wrong keys take the same time.
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
    """Return the key in a request: Bearer, else `x-api-key`, else `api-key` (Azure), else the Basic password.

    `headers` are the `fields` by name, the first of each. Returns None if there is no key, or if one of
    these fields is repeated, because it is then unclear which key counts.
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
    # `http://KEY@host` sends the key as the user name.
    return (password or user or None) if colon else None


def _models(key: config.KeySettings) -> frozenset[str] | None:
    return None if key.models is None else frozenset(key.models)
