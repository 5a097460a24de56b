"""Who gets which card, and whether to try again: pure decisions over plain data.

`scheduler` holds the queues and hands out backends, event by event; `balance` chooses among the free
ones; `retry` says whether a failure may be tried elsewhere; `patience` says how long to wait for the
next byte; `service` learns how long answers take; `health` says who may be asked, and how much. Time is an
argument everywhere.
"""
