"""Reads config.toml again, on SIGHUP or when the file has changed, and applies it as a whole or not at all.

A file with faults, or with a change that needs a restart, leaves the present configuration in force. The
log says why, and `gateway_config_reloads_total` counts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from gateway import config
from gateway.config.loops import refuse_loops
from gateway.telemetry.logs.events import EventLog
from gateway.telemetry.metrics.exporter import Metrics

POLL = 1.0
"""Seconds between two checks of the files. A change counts once two checks have seen the same state."""
MOST_TOLD = 10
"""Faults of a file that the log lists; `gateway check` lists all."""

Result: TypeAlias = Literal["ok", "unchanged", "invalid", "fixed"]
Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]
"""The state of files, without their contents. A replaced symbolic link changes it like a write."""


class Reloadable(Protocol):
    """The object that uses the configuration."""

    @property
    def settings(self) -> config.Config:
        """The configuration in force."""

    def reconfigure(self, settings: config.Config) -> None:
        """Use another configuration. Raises `OSError` and changes nothing if a file cannot be used."""


class Reloader:
    """Reads the file again, one time after the other. `ask` may be called at any time, also by a signal.

    `given` is what options say, which wins over the file.
    """

    def __init__(
        self, path: Path, subject: Reloadable, logs: EventLog, metrics: Metrics, given: config.Given
    ) -> None:
        self._path = path
        self._subject = subject
        self._logs = logs
        self._metrics = metrics
        self._given = given
        self._taken = self._look()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Request a reload soon."""
        self._asked.set()

    async def run(self) -> None:
        """Reload on request, or when a watched file has changed. Runs until it is cancelled."""
        try:
            await self._run()
        except Exception as error:  # a bug, and the end of reloading: nobody else would tell
            self._logs.crash("reload", error)
            raise

    async def _run(self) -> None:
        seen = self._taken
        while True:
            if await self._wait_asked():
                await self.reload("SIGHUP")
            elif self._subject.settings.server.watch:
                before, seen = seen, await asyncio.to_thread(self._look)
                if seen == before != self._taken:
                    await self.reload("file")

    async def _wait_asked(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        return asked

    def _look(self) -> Stamp:
        files = (self._path, *config.named_files(self._subject.settings))
        return tuple(_stamp(file) for file in files)

    async def reload(self, cause: str) -> Result:
        """Read the file and apply it if possible; return the result."""
        stamp = await asyncio.to_thread(self._look)
        try:
            settings = await asyncio.to_thread(self._load)
            result = self._take_over(settings, cause)
        except config.ConfigError as error:
            faults = [str(fault) for fault in error.faults]
            result = self._refused("invalid", cause, faults)
        except OSError as error:
            result = self._refused(
                "invalid", cause, [f"{self._path}: {error.strerror or type(error).__name__}"]
            )
        self._metrics.reloaded(result)
        # Of the files named now; a new one among them is seen as a change once more, and found unchanged.
        self._taken = stamp
        return result

    def _load(self) -> config.Config:
        settings = config.load(self._path, os.environ, self._given)
        refuse_loops(settings, self._path)
        return settings

    def _take_over(self, settings: config.Config, cause: str) -> Result:
        old = self._subject.settings
        fixed = config.fixed_changes(old, settings)
        if fixed:
            return self._refused("fixed", cause, [f"{key}: needs a restart" for key in fixed])
        if settings == old:
            self._logs.reloaded("unchanged", cause, config.digest(old))
            return "unchanged"
        self._subject.reconfigure(settings)
        self._logs.reloaded("ok", cause, config.digest(settings))
        return "ok"

    def _refused(self, result: Result, cause: str, faults: list[str]) -> Result:
        digest = config.digest(self._subject.settings)
        self._logs.reloaded(result, cause, digest, faults=faults[:MOST_TOLD])
        return result


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
