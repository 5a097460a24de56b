"""I/O with backends; the only room that imports httpx.

`connection`: one HTTP/1.1 connection; `dialer`: opens it; `socket_options`: its TCP options; `resolver`:
looks up names off the event loop; `pool`: the connections to one server; `request_head`: the constant bytes
of requests; `sending`: one request, to the head of its answer; `exchange`: one request and its answer,
within its deadlines; maps every fault to one of our errors; `client`: the exchanges with one server;
`transport`: httpx's interface to the same connections, for probes; `probe_client`: httpx without what
probes do not need; `backend`: one server: dialect, limits, client, what was learned of it;
`health_monitor`: the health of all backends; `prober`: probes those that no request tells of.

Rule: Faults become exceptions of `errors` once, in `exchange`.
"""
