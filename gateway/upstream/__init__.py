"""Outbound: the only room that does I/O with backends, and the only one that imports httpx.

`transport` makes the connections' transport; `client` speaks HTTP to one server and maps every foreign
error at one seam; `backend` is one server with its dialect, limits and live state; `background` keeps
the few tasks that outlive a request: answers nobody waits for, on cards that cannot be interrupted.
"""
