"""Scheduling decisions: which request gets which backend, and whether a failed request is repeated.

`scheduler`: the queues and the slots; `slot_request`: what a request asks for, and the ticket of a waiting
request; `fair_queue`: which waiting request is served next; `queue_limits`: which request is removed when a
queue is full; `availability`: what the scheduler needs to know about a backend; `health`: the state machine
of a backend's health; `health_states`: the words for its states; `failure_counts`: the failures that count
against a backend; `backoff`: how long a backend rests after failures; `balancers`: the policies that choose
one of several free backends; `affinity`: the keys by which balancers recognise related requests;
`service_time`: the average duration of an answer; `retry`: whether a failed attempt is repeated;
`deadlines`: the time-outs of an attempt; `traffic_split`: whether a request belongs to a share of the
traffic; `endpoints`: how the servers found in DNS become numbered members.

Rule: This package is pure. Time and random numbers are passed in as arguments.
"""
