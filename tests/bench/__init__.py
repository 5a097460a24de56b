"""What a request through the gateway costs, as ratios to others measured in the same run.

The cast: a `Workload` says what is sent and how; a `Target` is a program that is measured, started alone on
one core; the mock and the load client share the other (C programs where there are sources and a compiler,
else `mock` and `load` of this folder, which speak the same options). A `Record` is what one target did in one
round; `judge` strikes out streams that were held back; `tables` shows medians and ranges. `python -m
tests.bench` runs it all, `python -m tests.bench.soak` watches memory.

`overload`, `leaves` and `busy` are programs of their own: they hold the gateway to its promises under stress
(`own` starts it for them).
"""
