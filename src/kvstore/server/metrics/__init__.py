"""Prometheus metrics: ``calls`` counted as they happen, ``families`` read at a scrape, ``endpoint``
``/metrics`` over HTTP, ``switch`` on or off."""
