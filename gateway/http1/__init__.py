"""Client connections: HTTP/1.1 framing, limits of size, time and number, and the bytes of responses.

`connection`: `ClientConnection`, the protocol that uvicorn makes for each client; `exchange`: one request
and its response on a connection; `request_loop`: the task that serves the requests of a connection in turn;
`admission`: limits on the number of connections, and the periodic check of their time limits; `head`: checks
of a request's head; `refusal`: responses to requests that are refused before they reach the application.

Rule: Only `server` imports this room.
"""

from gateway.http1.admission import ConnectionAdmission
from gateway.http1.connection import ClientConnection

__all__ = ["ClientConnection", "ConnectionAdmission"]
