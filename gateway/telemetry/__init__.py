"""The records of the gateway's work, and the hooks that receive them.

`receipt`: the record of one request, and the hooks that receive it; `comparison`: the record of a shadow
copy; `logs`: log lines; `metrics`: Prometheus metrics.

Rule: A receipt contains no prompt, no answer and no key. A hook never raises an exception into a request.
"""
