"""Who asks, and what they may.

`keys` turns a presented key into a `Tenant`, in constant time and without keeping the key.
"""
