"""Outbound: the only room that does I/O with backends, and the only one that imports httpx.

`connection` is one HTTP/1.1 connection, `dialer` opens it, `pool` keeps those of one server; `transport`
makes httpx's interface of them and `lean` a client that builds little for each request (`message`).
`client` speaks to one server, holds every wait to its limit (`deadline`) and maps every foreign error at
one seam; `backend` is one server with its dialect, limits and live state; `background` keeps the few
tasks that outlive a request: answers nobody waits for, on cards that cannot be interrupted.
"""
