class FileSystem:
    """A disk that :class:`kvstore.DB` and the log can stand on (their ``filesystem=`` argument)."""
