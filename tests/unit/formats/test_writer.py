"""Every writer of the gateway fits the protocols that `api/whole.py` and `api/stream.py` work with."""

from __future__ import annotations

from gateway.formats.native import NativeWriter
from gateway.formats.openai.writer import ChatWriter
from gateway.formats.writer import NO_FORMATS, StreamWriter, Writer


def whole(writer: type[Writer]) -> frozenset[str]:
    return frozenset(writer.accepts)


def stream(writer: type[StreamWriter]) -> type[StreamWriter]:
    return writer


def test_chat_reads_bytes_of_openai_like_backends_and_native_clients_none() -> None:
    assert whole(ChatWriter) == {"openai-chat"}
    assert whole(NativeWriter) == NO_FORMATS


def test_chat_answers_can_be_streamed() -> None:
    assert stream(ChatWriter) is ChatWriter
