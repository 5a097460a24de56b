"""The `POST /` format of ChatGLM-6B, ChatGLM2-6B and chatglm.cpp's langchain_api (rules T1 to T18).

The gateway always sends `prompt`, `history` and `max_length`, and sends `temperature` and `top_p` if the
client does. The server answers without streaming, without token counts, and without a finish reason.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from gateway.dialects.base import Dialect, Outgoing, Profile
from gateway.dialects.shared import allowed, budget
from gateway.dialects.shared.fitting import fold_to_fit
from gateway.dialects.shared.folding import FoldedConversation
from gateway.dialects.shared.losses import lost
from gateway.dialects.shared.refusals import reported
from gateway.errors import UnsupportedParameter, UpstreamEmpty, UpstreamGarbled
from gateway.formats import jsontext, token_counts
from gateway.formats.events import Delta, Event, Finish, Usage
from gateway.formats.openai import ChatRequest

_SENT = frozenset({"temperature", "top_p", "max_tokens", "max_completion_tokens"})


class PromptDialect(Dialect):
    """A dialect of the `POST /` format. Subclasses define the history and the sampling parameters."""

    context: ClassVar[int] = 8192
    ranges = allowed.NATIVE
    doubt: ClassVar[str] = ""
    """The note to log if such a server fails at every request with a history."""

    def ask(self, request: ChatRequest, profile: Profile, *, stream: bool) -> Outgoing:  # noqa: ARG002 - this format has no streams
        allowed.check(request, self.ranges)
        budget.stops_for(request)
        context = profile.context or self.context
        prompt, history, prompt_tokens = self.conversation(request, profile, context)
        wanted = budget.wanted_output(request, profile, prompt_tokens)
        window = self.window(profile)
        total = budget.total_length(request, prompt_tokens, wanted, context, window)
        return Outgoing(
            path="/",
            body=jsontext.write(
                {
                    "prompt": prompt,
                    "history": history,
                    "max_length": total,
                    **self.sampling(request, profile),
                },
                large=request.large,
            ),
            streams=False,
            prompt=prompt_tokens,
            budget=wanted,
            total=total,
            ignored=lost(request, profile, _SENT, refuse_tools(request, profile)),
            kept=None if window is None else min(prompt_tokens, window),
            doubt=self.doubt if history else "",
        )

    def answer(self, outgoing: Outgoing, body: bytes) -> list[Event]:
        text = self._response(body)
        counted = token_counts.estimate(text, self.cjk)
        prompt_tokens = outgoing.prompt_tokens
        if text:
            reason = budget.finish_reason(counted, outgoing.budget, outgoing.kept_tokens, outgoing.total)
            return [Delta(text), Finish(reason), Usage(prompt_tokens, counted, "estimate")]
        # An empty answer: either the prompt left no room, or the model has failed, which is an error.
        if outgoing.total is not None and outgoing.kept_tokens * 10 >= outgoing.total * 9:
            return [Finish("length")]
        raise UpstreamEmpty("The backend gave an empty answer.")

    def window(self, profile: Profile) -> int | None:  # noqa: ARG002 - for those that override it
        """Return the number of prompt tokens that the server keeps; None if it keeps all."""
        return None

    @abstractmethod
    def conversation(
        self, request: ChatRequest, profile: Profile, context: int
    ) -> tuple[str, list[Any], int]:
        """Return the prompt, the history before it, and P. Raises `BadRequest` and `ContextExceeded`."""

    @abstractmethod
    def sampling(self, request: ChatRequest, profile: Profile) -> dict[str, Any]:
        """Return the sampling parameters to send."""

    def text(self, response: Any) -> Any:
        """Return the text of the answer's member `response`; anything but a string is an error."""
        return response

    def _response(self, body: bytes) -> str:
        try:
            answer = jsontext.read_lenient(body)
        except ValueError:
            raise UpstreamGarbled("The backend's answer is not JSON.") from None
        error = reported(answer) if isinstance(answer, dict) and "response" not in answer else None
        if error is not None:
            raise error
        text = self.text(answer.get("response")) if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise UpstreamGarbled("The backend's answer has no text in `response`.")
        if answer.get("status", 200) != 200:
            raise UpstreamGarbled("The backend's answer reports a failure.")
        return text


class NativeDialect(PromptDialect):
    """A dialect whose history is pairs of question and answer. Subclasses count the prompt."""

    pairs = True

    def conversation(
        self, request: ChatRequest, profile: Profile, context: int
    ) -> tuple[str, list[Any], int]:
        folded, prompt_tokens = fold_to_fit(request, profile, context, self.count_prompt)
        return folded.prompt.text, folded.history, prompt_tokens

    @abstractmethod
    def count_prompt(self, folded: FoldedConversation) -> int:
        """Return P, the estimated number of tokens of the prompt that the server will build."""


def refuse_tools(request: ChatRequest, profile: Profile) -> tuple[str, ...]:
    """Refuse tools with an error, or return their name as lost with `tools = "ignore"` (rule T5)."""
    if request.tool_mode == "none":
        return ()
    name = "functions" if request.legacy_functions else "tools"
    if profile.tools == "ignore":
        return (name,)
    raise UnsupportedParameter(
        f"This model has no tools. Leave {name} out, or ask a model that has them.", param=name
    )


def never_greedy(request: ChatRequest, profile: Profile) -> dict[str, Any]:
    """Return the sampling parameters for servers that take 0 for "not given" (rule T12).

    Temperature 0 is sent as 0.1 with `top_p` 0.01, which keeps only the most probable token: the servers
    replace 0 by 0.95, and very small values can overflow in half precision.
    """
    sampling: dict[str, Any] = {}
    if request.temperature is not None:
        sampling["temperature"] = min(request.temperature, profile.max_temperature or request.temperature)
    if request.top_p is not None:
        sampling["top_p"] = request.top_p or 0.01
    if request.temperature is not None and request.temperature < 0.01:
        sampling |= {"temperature": 0.1, "top_p": 0.01}
    return sampling
