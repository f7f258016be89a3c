def compression_of(name: str | None) -> int:
    """The number that frames carry for ``"none"`` (or ``None``), ``"lz4"`` or ``"zstd"``.

    Raises InvalidArgumentError for any other name and ConfigurationError where the package that
    does it is not installed.
    """
