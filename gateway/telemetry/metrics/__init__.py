"""Prometheus metrics.

`families`: the table of all metrics; `counters`: plain counters that become Prometheus' when scraped;
`exporter`: counts, and renders `/metrics`.

Rule: Only `counters` and `exporter` import prometheus_client. No label comes from user input.
"""
