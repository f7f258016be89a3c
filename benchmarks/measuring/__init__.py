"""What benchmarks of servers share: turns of servers, goals, settings, a look at the metrics."""
