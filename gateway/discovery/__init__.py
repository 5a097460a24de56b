"""Backends whose addresses come from DNS.

`dns`: repeats the queries for as long as the gateway runs; `nameserver`: sends queries to name servers, and
is the only file that imports dnspython.

Rule: Which members a name has is decided in `scheduling/endpoints.py`.
"""
