"""Who asks, and what they may.

`keys`: a presented key to its `Tenant`, in constant time; `failures`: delays for addresses that present
wrong keys.

Rule: Keys are kept as digests; a connection remembers the last key it presented until it closes.
"""
