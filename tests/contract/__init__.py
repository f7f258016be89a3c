"""What every :class:`kvstore.service.operations.Service` promises, and who is held to it."""
