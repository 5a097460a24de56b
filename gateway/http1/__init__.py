"""A client's connection: how large, how slow, how well framed it may be, and the bytes of each answer.

`Connection` is the protocol that uvicorn makes for each client, `Cycle` one request on it; `Arrivals` knows
who is connected to a plane: caps in total and per address, and the one sweep that ends whoever takes too
long. `head` says what a request's head must look like, `refusal` writes the answer that no application has
seen. Only `server` comes in here.
"""

from gateway.http1.admission import ConnectionAdmission
from gateway.http1.connection import ClientConnection

__all__ = ["ClientConnection", "ConnectionAdmission"]
