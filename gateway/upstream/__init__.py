"""Outbound: the only room that does I/O with backends, and the only one that imports httpx.

`connection` is one HTTP/1.1 connection, `dialer` opens it, `pool` keeps those of one server, and `asking`
gets a request (`message`) over one of them to the head of its answer. `exchange` is one request and its
answer: it holds every wait to its limit and maps every foreign error at one seam. `client` makes the
exchanges with one server; `transport` and `lean` give httpx's interface to the same connections, for probes
and for mocks. `backend` is one server with its dialect, limits and live state; `background` keeps the few
tasks that outlive a request: answers nobody waits for, on cards that cannot be interrupted.
"""
