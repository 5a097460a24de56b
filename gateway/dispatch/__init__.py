"""Where requests wait for a slot.

`dispatcher`: hands out `Lease`s: waits, wakes and times out around the decisions of `scheduling`.

Rule: A lease is ended by the attempt that holds it, whatever happens.
"""
