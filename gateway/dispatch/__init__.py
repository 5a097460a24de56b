"""The place where requests wait for a slot.

`dispatcher`: hands out each `Lease`; it does the waiting, waking and timing out for the decisions of
`scheduling`.

Rule: The attempt that holds a lease always ends it, whatever happens.
"""
