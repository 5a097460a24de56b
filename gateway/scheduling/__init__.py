"""Who gets which backend, and whether to try again. Pure decisions over plain data.

`scheduler`: queues and slots, event by event; `slot_request`: what is asked for, and the ticket of a
request that waits; `fair_queue`: which waiting request is next; `queue_limits`: which request is displaced
when a queue is full; `availability`: whether a backend may be asked; `health`: the state machine of a
backend's health; `balancers`: which of several free backends; `affinity`: by what a request is known to
them; `service_time`: how long answers take; `retry`: whether a failed attempt is repeated; `deadlines`: the
time-outs of an attempt; `traffic_split`: whether a request belongs to a share; `endpoints`: who is who of
the servers that DNS names.

Rule: Time and randomness are arguments.
"""
