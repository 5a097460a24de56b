"""Backends that DNS names.

`dns`: follows the names for as long as the gateway runs; `nameserver`: asks name servers; the only file
that knows dnspython.

Rule: Which members a name has is decided in `scheduling/endpoints.py`.
"""
