"""What a client may do to a connection before there is a request: how large, how slow, how well framed.

`Connection` is uvicorn's protocol with limits, one per client; `Arrivals` knows who is connected to a
plane: caps in total and per address, and the one sweep that ends whoever takes too long. `head` says what
a request's head must look like, `refusal` writes the answer that no application has seen. Only `server`
comes in here.
"""

from gateway.inbound.arrivals import Arrivals
from gateway.inbound.connection import Connection

__all__ = ["Arrivals", "Connection"]
