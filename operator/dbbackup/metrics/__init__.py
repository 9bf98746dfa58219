"""What Prometheus is told. `catalog` lists every metric; `records` and `families` make those that
tell of objects, from the objects alone, so that they are the same after a restart; `process` holds
those that count what this process does; `page` puts both together."""
