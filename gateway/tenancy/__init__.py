"""Who sends a request, and which models that tenant may use.

`keys`: finds the `Tenant` of a presented key in constant time; `failures`: delays the answers to addresses
that present wrong keys.

Rule: Keys are stored as digests only. A connection remembers the last key it presented until it closes.
"""
