"""Lets a brain speak at the pace of a real card, and notices a listener who has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.simulator.brain import Brain, BrainPrompt
from gateway.simulator.exchange import ClientGoneError, Request
from gateway.simulator.options import Options


class PacedSpeaker:
    """A brain with a pace. One per simulated server, shared by its requests."""

    def __init__(self, brain: Brain, options: Options) -> None:
        self._brain = brain
        self._options = options

    async def speak(
        self, request: Request, prompt: BrainPrompt, *, notices: bool = False
    ) -> AsyncGenerator[str, None]:
        """The answer's pieces, each after its pause.

        With `notices` the generation ends at once when the client leaves (ClientGoneError); without it, it
        runs on to the end. Raises ModelError.
        """
        async with aclosing(self.speak_marked(request, prompt, notices=notices)) as pieces:
            async for piece, _ in pieces:
                yield piece

    async def speak_marked(
        self, request: Request, prompt: BrainPrompt, *, notices: bool = False
    ) -> AsyncGenerator[tuple[str, bool], None]:
        """The same, each piece with "is the last", known without waiting for a next one."""
        options = self._options
        answer = self._brain.answer(prompt, options.reply if request.reply is None else request.reply)
        await self._rest(options.latency + answer.wait, request, notices=notices)
        async with aclosing(answer.pieces) as pieces:
            piece = await anext(pieces, None)
            while piece is not None:
                coming = await anext(pieces, None)
                pause = answer.pause + (len(piece) / options.speed if options.speed else 0.0)
                await self._rest(pause, request, notices=notices)
                yield piece, coming is None
                piece = coming

    async def say(self, request: Request, prompt: BrainPrompt, *, notices: bool = False) -> str:
        """The whole answer, after the time it takes."""
        return "".join([piece async for piece in self.speak(request, prompt, notices=notices)])

    async def _rest(self, seconds: float, request: Request, *, notices: bool) -> None:
        if notices and request.link.gone:
            raise ClientGoneError
        if seconds <= 0:
            return
        if not notices:
            await self._options.sleep(seconds)
        elif await self._left_within(seconds, request):
            raise ClientGoneError

    async def _left_within(self, seconds: float, request: Request) -> bool:
        rest = asyncio.ensure_future(self._options.sleep(seconds))
        leave = asyncio.ensure_future(request.link.wait_gone())
        try:
            done, _ = await asyncio.wait({rest, leave}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rest.cancel()
            leave.cancel()
        return leave in done
