"""gRPC handlers: they translate between messages and the service's words, and nothing else."""
