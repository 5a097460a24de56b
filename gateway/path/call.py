"""One client request after parsing: what is asked, for whom, and in which conversation."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dialects.base import Dialect
from gateway.formats.operation import Operation, OperationRequest
from gateway.tenancy.keys import ANONYMOUS, Tenant


@dataclass(slots=True)
class Call:
    """A parsed request. Made by a door, shared by all plans and attempts, never changed.

    `lean` is the same request without empty turns, where it came as question-and-answer pairs. `session` is
    the client's own name for the conversation, if a header gave one.
    """

    request: OperationRequest
    tenant: Tenant = ANONYMOUS
    lean: OperationRequest | None = None
    session: str = ""
    operation: Operation = "chat"

    def for_dialect(self, dialect: Dialect) -> OperationRequest:
        """Return the form that a dialect is translated from."""
        return self.request if self.lean is None or dialect.pairs else self.lean

    def single(self) -> Call:
        """Return the same call for one choice only."""
        lean = self.lean and self.lean.single()
        return Call(self.request.single(), self.tenant, lean, self.session, self.operation)

    def asking(self, request: OperationRequest) -> Call:
        """Return the same call with another request, which an ability asks in the place of the first."""
        return Call(request, self.tenant, None, self.session, self.operation)

    def of(self, model: str) -> Call:
        """Return the same call, asked of another model."""
        lean = self.lean and self.lean.of(model)
        return Call(self.request.of(model), self.tenant, lean, self.session, self.operation)
