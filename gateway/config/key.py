"""Key: what a client shows, and what it opens."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256

from pydantic import Field

from gateway.config.section import Section
from gateway.config.value_types import ClientKey, Digest, FilePath, Label, ModelNames, Moment


class KeySettings(Section):
    """One client's key. Exactly one of `key`, `key_sha256` and `key_file` is given."""

    name: Label
    """Who the key belongs to: the tenant in logs and in the fair queue; metrics have no label for it."""
    key: ClientKey | None = None
    """The key itself: 8 characters or more, no blank, no dot."""
    key_sha256: Digest | None = None
    """SHA-256 of the key in hexadecimal, so that the file holds no secret."""
    key_file: FilePath | None = None
    """File that holds the key, relative to the config file."""
    models: ModelNames | None = None
    """Models it may use. Unset: all."""
    weight: int = Field(default=1, ge=1, le=100)
    """Its part of the turns while several keys' requests wait for the same backends."""
    priority: int = Field(default=0, ge=-9, le=9)
    """Its class: requests of a higher one go first. A lower one still gets every tenth turn or so."""
    expires: Moment | None = None
    """Last day or moment it is good for; a date counts to its end, both in UTC unless an offset is given."""

    @property
    def digest(self) -> str:
        """SHA-256 of the key in lower-case hexadecimal: what a key that arrives is compared with."""
        if self.key is not None:
            return sha256(self.key.get_secret_value().encode()).hexdigest()
        if self.key_sha256 is not None:
            return self.key_sha256.get_secret_value()
        raise ValueError(f"key {self.name} has neither key nor key_sha256; load() reads key_file")

    @property
    def expires_at(self) -> datetime | None:
        """The first moment at which the key is no longer good, with its zone; None where it never ends."""
        if self.expires is None or isinstance(self.expires, datetime):
            return _in_utc(self.expires)
        return datetime.combine(_next_day(self.expires), time(), tzinfo=UTC)


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _next_day(day: date) -> date:
    return day + timedelta(days=1)
