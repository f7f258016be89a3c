"""Spans of the calls that clients trace, by OpenTelemetry."""
