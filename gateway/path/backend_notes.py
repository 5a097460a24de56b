"""Logs what requests reveal about a backend, once per backend, however many requests reveal it."""

from __future__ import annotations

from collections.abc import Callable

from gateway.dialects.base import Outgoing
from gateway.errors import UpstreamMisconfigured
from gateway.upstream.backend import Backend

MAX_NOTES = 32
"""Maximum number of different notes that are logged for one backend."""


class BackendNotes:
    """Writes notes about backends to the log. Shared by all requests of one path.

    `log` takes the name of a backend and the text of a note.
    """

    __slots__ = ("_log",)

    def __init__(self, log: Callable[[str, str], None]) -> None:
        self._log = log

    def of_request(self, backend: Backend, outgoing: Outgoing) -> None:
        """Log what the dialect noted when it translated a request for this backend."""
        for note in outgoing.notes:
            self.note(backend, note)

    def note(self, backend: Backend, note: str) -> None:
        """Log a note about a backend, once. At most `MAX_NOTES` different ones are logged for each."""
        if note not in backend.noted and len(backend.noted) < MAX_NOTES:
            backend.noted.add(note)
            self._log(backend.name, note)

    def doubt(self, backend: Backend, doubt: str) -> None:
        """Log, once, that a backend may not be what is configured: only requests of one kind fail there."""
        if "" in backend.answered and doubt not in backend.answered | backend.noted:
            backend.noted.add(doubt)
            self._log(backend.name, doubt)

    def misconfigured(self, backend: Backend, outgoing: Outgoing, error: UpstreamMisconfigured) -> None:
        """Log that a backend's configuration does not fit it; once, until it has answered a request."""
        fault = f"POST {backend.settings.calls.url(outgoing.path)} {error.hint}"
        if backend.fault != fault:
            backend.fault = fault
            self._log(backend.name, fault)
