"""The operator's metrics for Prometheus. No module here talks to the API server.

Input: the objects that the operator's cache holds, and calls that report what the process does: a
finished reconciliation, an answer of the API server, the end of a run. Output: the page for
/metrics, as bytes. `handlers.telemetry` connects the two.

Read in this order:

- `catalog`: every metric with type, help and labels. A new metric starts here.
- `records`: an object to its record, the few values that metrics need of it.
- `families`: records to series. They depend on the objects alone, so they are the same after a
  restart.
- `process`: counters and gauges of this process, which start at 0.
- `page`: puts both together and writes Prometheus' text format.

docs/monitoring.md lists the catalog (generated); alerts and dashboards are in the chart.
"""
