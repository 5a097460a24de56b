"""Reading config.toml again: taken over whole, or not at all and said why."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import reload
from gateway.background import Background
from gateway.config import Config, load
from gateway.dispatch.dispatcher import Dispatcher
from gateway.reload import Reloader
from gateway.telemetry.logs.events import EventLog, configure
from gateway.telemetry.metrics.exporter import Metrics
from tests.support.stack import wait_until

BACKEND = '[[backends]]\nname = "{}"\nurl = "http://127.0.0.1:1"\ndialect = "openai"\nmodels = ["m"]\n'
SECRET = "sk-very-secret"


class Subject:
    """Takes everything over, unless it is told not to."""

    def __init__(self, settings: Config) -> None:
        self.settings = settings
        self.error: OSError | None = None

    def reconfigure(self, settings: Config) -> None:
        if self.error is not None:
            raise self.error
        self.settings = settings


class House:
    """A config file and who reads it again."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "config.toml"
        self.file.write_text(text)
        self.log = io.StringIO()
        self.logs: EventLog = configure("json", "debug", self.log)
        self.subject = Subject(load(self.file, {}))
        live: Any = Dispatcher.__new__(Dispatcher)  # nothing is scraped that is asked of it
        live.at_once = {}
        self.metrics = Metrics(models=[], backends={}, live=live, version="1")
        self.reloader = Reloader(self.file, self.subject, self.logs, self.metrics, {})

    @property
    def lines(self) -> list[dict[str, Any]]:
        self.logs.flush()
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == "reload"]

    def counted(self, result: str) -> bool:
        text = self.metrics.render()[0].decode()
        return f'gateway_config_reloads_total{{result="{result}"}} 1.0' in text


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, BACKEND.format("a"))


async def test_a_good_file_is_taken_over(house: House) -> None:
    house.file.write_text(BACKEND.format("b"))
    assert await house.reloader.reload("SIGHUP") == "ok"
    assert house.subject.settings.backends[0].name == "b"
    (line,) = house.lines
    assert (line["event"], line["result"], line["cause"]) == ("reload", "ok", "SIGHUP")
    assert house.counted("ok")


async def test_a_file_that_says_the_same_changes_nothing(house: House) -> None:
    before = house.subject.settings
    house.file.write_text("# a remark\n" + BACKEND.format("a"))
    assert await house.reloader.reload("file") == "unchanged"
    assert house.subject.settings is before
    assert house.counted("unchanged")


async def test_what_options_say_wins_over_a_file_that_is_read_again(house: House) -> None:
    given = {"server": {"listen": "127.0.0.1:7"}}
    house.subject.settings = load(house.file, {}, given)
    reloader = Reloader(house.file, house.subject, house.logs, house.metrics, given)
    house.file.write_text(BACKEND.format("b"))
    assert await reloader.reload("SIGHUP") == "ok"
    assert house.subject.settings.server.listen == "127.0.0.1:7"
    house.file.write_text(BACKEND.format("c").replace("http://127.0.0.1:1", "http://localhost:7"))
    assert await reloader.reload("SIGHUP") == "invalid"


BROKEN = [
    pytest.param("[[backends", "no valid TOML", id="toml"),
    pytest.param(BACKEND.format("a") + "slotz = 2\n", "config.toml:6: backends[0].slotz: unknown", id="key"),
    pytest.param(BACKEND.format("a").replace("http:", "ftp:"), "backends[0].url", id="url"),
    pytest.param(f'{BACKEND.format("a")}api_key = "{SECRET} x"\n', "backends[0].api_key", id="secret"),
]


@pytest.mark.parametrize(("text", "told"), BROKEN)
async def test_a_broken_file_leaves_the_old_one_and_says_why(house: House, text: str, told: str) -> None:
    before = house.subject.settings
    house.file.write_text(text)
    assert await house.reloader.reload("SIGHUP") == "invalid"
    assert house.subject.settings is before
    (line,) = house.lines
    assert (line["level"], line["result"]) == ("warning", "invalid")
    assert any(told in fault for fault in line["faults"])
    assert SECRET not in house.log.getvalue()
    assert house.counted("invalid")


async def test_a_file_that_is_gone_leaves_the_old_one(house: House) -> None:
    house.file.unlink()
    assert await house.reloader.reload("SIGHUP") == "invalid"
    assert "cannot be read" in house.lines[0]["faults"][0]


async def test_what_needs_a_restart_is_refused_whole(house: House) -> None:
    house.file.write_text(
        '[server]\nlisten = "127.0.0.1:8100"\n[log]\nlevel = "debug"\n' + BACKEND.format("b")
    )
    assert await house.reloader.reload("SIGHUP") == "fixed"
    assert house.subject.settings.backends[0].name == "a"
    assert house.lines[0]["faults"] == ["server.listen: needs a restart", "log.level: needs a restart"]
    assert house.counted("fixed")


async def test_a_certificate_that_cannot_be_used_is_told(house: House) -> None:
    house.file.write_text(BACKEND.format("b"))
    house.subject.error = FileNotFoundError(2, "No such file or directory")
    assert await house.reloader.reload("SIGHUP") == "invalid"
    assert "No such file" in house.lines[0]["faults"][0]


async def watched(house: House, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], name: str) -> None:
    """Run the reloader, act, and wait until the backend has this name."""
    monkeypatch.setattr(reload, "POLL", 0.01)
    background = Background()
    background.start(house.reloader.run(), "reloads")
    try:
        await wait_until(lambda: len(background) == 1)
        act()
        await wait_until(lambda: house.subject.settings.backends[0].name == name)
    finally:
        await background.aclose()


async def test_it_reads_when_it_is_asked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        house.file.write_text(BACKEND.format("b"))
        house.reloader.ask()

    await watched(house, monkeypatch, act, "b")


async def test_a_watched_file_is_read_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = "[server]\nwatch = true\n"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.toml").write_text(watch + BACKEND.format("longer"))
    house = House(tmp_path, watch + BACKEND.format("a"))

    def act() -> None:  # as Kubernetes does with a ConfigMap
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "new" / "config.toml")
        link.replace(house.file)

    await watched(house, monkeypatch, act, "longer")
    assert house.lines[0]["cause"] == "file"


async def test_a_file_that_nobody_watches_is_left_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Reloader] = []

    def look(reloader: Reloader) -> tuple[()]:
        looks.append(reloader)
        return ()

    monkeypatch.setattr(Reloader, "_look", look)
    monkeypatch.setattr(reload, "POLL", 0.001)
    background = Background()
    background.start(house.reloader.run(), "reloads")
    house.file.write_text(BACKEND.format("b"))
    await asyncio.sleep(0.02)  # time for many looks
    assert not looks
    house.reloader.ask()
    await wait_until(lambda: house.lines)
    await background.aclose()
    assert len(looks) == 1
    assert [line["cause"] for line in house.lines] == ["SIGHUP"]


async def test_a_bug_is_told(house: House) -> None:
    async def fail(cause: str) -> reload.Result:
        raise ValueError(cause)

    house.reloader.reload = fail  # type: ignore[method-assign]  # as a bug might
    house.reloader.ask()
    with pytest.raises(ValueError, match="SIGHUP"):
        await house.reloader.run()
    assert '"event":"crash","request_id":"reload","error":"ValueError"' in house.log.getvalue()
