"""`Call`: one client request after parsing."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dialects.base import Dialect
from gateway.formats.operation import Operation, OperationRequest
from gateway.tenancy.keys import ANONYMOUS, Tenant


@dataclass(slots=True)
class Call:
    """A parsed request. A door makes it; all plans and attempts share it; it does not change.

    Attributes:
        request: what is asked.
        tenant: who the request is accounted to.
        lean: the request without empty turns, if it came as question-and-answer pairs; else None.
        session: the client's name for the conversation, from a header; "" if there is none.
        operation: the kind of request, such as chat or embedding.
    """

    request: OperationRequest
    tenant: Tenant = ANONYMOUS
    lean: OperationRequest | None = None
    session: str = ""
    operation: Operation = "chat"

    def for_dialect(self, dialect: Dialect) -> OperationRequest:
        """Return the request to translate for a dialect: `lean` only for dialects without question pairs."""
        return self.request if self.lean is None or dialect.pairs else self.lean

    def single(self) -> Call:
        """Return the same call with `n` = 1."""
        lean = self.lean and self.lean.single()
        return Call(self.request.single(), self.tenant, lean, self.session, self.operation)

    def asking(self, request: OperationRequest) -> Call:
        """Return the same call with another request, which an ability sends in place of the first."""
        return Call(request, self.tenant, None, self.session, self.operation)

    def of(self, model: str) -> Call:
        """Return the same call for another model."""
        lean = self.lean and self.lean.of(model)
        return Call(self.request.of(model), self.tenant, lean, self.session, self.operation)
