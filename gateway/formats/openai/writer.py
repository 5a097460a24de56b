"""Writes answers as OpenAI's chat clients read them, whole or streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.errors import GatewayError, UpstreamTruncated
from gateway.formats import sse, waiting
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.formats.openai.answer import AnswerChoice, write_choices, write_completion, write_text
from gateway.formats.openai.chunks import ChunkWriter
from gateway.formats.openai.errors import write_error
from gateway.formats.openai.request import CHAT_READS, ChatRequest
from gateway.formats.waiting import Place
from gateway.formats.writer import WaitingStyle


class ChatWriter:
    """Writes one answer to a chat request. Serves as `Writer` and as `StreamWriter`.

    Args:
        request: what the client asked.
        model: gives the name of the model that answers, known when the first event has come.
        write_model: gives that name as JSON.
        new_id: makes an id with a prefix.
        now: the wall clock, in Unix seconds.
    """

    accepts = CHAT_READS

    def __init__(
        self,
        request: ChatRequest,
        *,
        model: Callable[[], str],
        write_model: Callable[[str], bytes],
        new_id: Callable[[str], str],
        now: Callable[[], float],
    ) -> None:
        self.passed = False
        self._request = request
        self._model = model
        self._write_model = write_model
        self._new_id = new_id
        self._now = now
        self._chunks: ChunkWriter | None = None
        self._stamped: tuple[str, int] | None = None
        self._unfinished: set[int] = set()
        self._usage: Usage | None = None

    # --- whole -------------------------------------------------------------------------------------

    def whole(self, events: Sequence[Event]) -> bytes:
        """Return a `chat.completion`. Raises `UpstreamTruncated` where a finish or the usage is missing."""
        written = write_text(events)
        if written is None:
            choices, usage = self._put_together(events)
            written = write_choices(choices, self._request.legacy_functions), usage
        return write_completion(
            answer_id=self._new_id("chatcmpl-"),
            created=int(self._now()),
            model=self._write_model(self._model()),
            choices=written[0],
            usage=written[1],
        )

    def _put_together(self, events: Sequence[Event]) -> tuple[dict[int, AnswerChoice], Usage]:
        choices: dict[int, AnswerChoice] = {}
        usage: Usage | None = None
        for event in events:
            if isinstance(event, Usage):
                usage = event
            elif isinstance(event, Delta):
                choices.setdefault(event.choice, AnswerChoice()).add(self._identified(event))
            elif isinstance(event, Finish):
                choices.setdefault(event.choice, AnswerChoice()).finish = event.reason
        if usage is None or not choices or None in [choice.finish for choice in choices.values()]:
            raise _truncated()
        return choices, usage

    # --- streamed ----------------------------------------------------------------------------------

    def waiting(self, place: Place, style: WaitingStyle) -> bytes:
        """Return a comment, an event of the queue, or a chunk without text."""
        if style == "chunks":
            answer_id, created = self._stamp()
            return waiting.chunk(answer_id, created, self._model())
        return waiting.event(place) if style == "events" else waiting.comment(place)

    def event(self, event: Event) -> bytes:
        """Return the chunks of one event. Usage is kept for `end`."""
        if isinstance(event, Delta):
            if event.empty:
                return b""
            self._unfinished.add(event.choice)
            return self._chunk_writer().delta(self._identified(event))
        if isinstance(event, Finish):
            self._unfinished.discard(event.choice)
            return self._chunk_writer().finish(event.reason, event.choice)
        if isinstance(event, Usage):
            self._usage = event
        return b""

    def error(self, error: GatewayError) -> bytes:
        """Return the error envelope as the last event: without a finish reason, and without `[DONE]`."""
        return sse.frame(write_error(error))

    def end(self) -> bytes:
        """Return the usage chunk, where the client wants one and has not got the backend's, and `[DONE]`."""
        if self._unfinished or self._usage is None:
            raise _truncated()
        if self.passed or not self._request.include_usage:
            return sse.DONE
        return self._chunk_writer().usage(self._usage) + sse.DONE

    def _chunk_writer(self) -> ChunkWriter:
        if self._chunks is None:
            answer_id, created = self._stamp()
            self._chunks = ChunkWriter(
                answer_id=answer_id,
                created=created,
                model=self._model(),
                include_usage=self._request.include_usage,
                legacy=self._request.legacy_functions,
            )
        return self._chunks

    def _stamp(self) -> tuple[str, int]:
        """Return the id and the time of this stream: the same in all its chunks."""
        if self._stamped is None:
            self._stamped = self._new_id("chatcmpl-"), int(self._now())
        return self._stamped

    def _identified(self, event: Delta) -> Delta:
        """Give an id to tool calls whose backend gave them none."""
        if not event.tools:
            return event
        tools = tuple(
            replace(piece, id=self._new_id("call_")) if piece.name and not piece.id else piece
            for piece in event.tools
        )
        return event._replace(tools=tools)


def _truncated() -> UpstreamTruncated:
    return UpstreamTruncated("The backend's answer broke off.")
