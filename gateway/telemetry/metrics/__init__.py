"""Prometheus metrics.

`families`: the table of all metrics; `counters`: counters in plain Python that are converted at scrape
time; `exporter`: counts events and renders `/metrics`.

Rule: Only `counters` and `exporter` import prometheus_client. No label contains user input.
"""
