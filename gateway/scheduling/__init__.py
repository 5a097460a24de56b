"""Who gets which card, and whether to try again: pure decisions over plain data.

`scheduler` holds the queues and hands out backends, event by event, for the `claim` of each request; `turns`
says who is next, `bounds` who gives way, `fitness` whether a backend may be asked; `balancers` choose among
the free ones, some by an `affinity`; `service` learns how long answers take. `retry` says whether a failure
may be tried elsewhere, `patience` how long to wait for the next byte. Time and chance are arguments.
"""
