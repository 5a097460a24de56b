"""What can be asked of a model, and what the path of a request needs to know of any such request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, TypeAlias

Operation: TypeAlias = Literal["chat", "completion", "embedding", "rerank", "forward"]
"""What is asked. Dialects have one translator for each that their servers know."""


class OperationRequest(Protocol):
    """A parsed request. Immutable: it is shared by every attempt to answer it."""

    @property
    def model(self) -> str:
        """The name of the model, "" for the default."""

    @property
    def n(self) -> int:
        """How many choices are asked for."""

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""

    @property
    def user(self) -> str | None:
        """The client's own name for its user."""

    @property
    def has_opening(self) -> bool:
        """Whether there is something that tells its conversation from others."""

    def turns(self, *, opening: bool) -> Iterator[bytes]:
        """Yield canonical bytes by which requests of one conversation are known.

        With `opening`, only those that stay the same while the conversation grows.
        """

    def single(self) -> OperationRequest:
        """Return the same request for one choice only."""

    def of(self, model: str) -> OperationRequest:
        """Return the same request for another model."""
