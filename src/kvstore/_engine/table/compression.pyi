def compression_of(name: str | None) -> int:
    """The number in frames of ``"none"`` (or ``None``), ``"lz4"``, ``"zstd"`` or ``"snappy"``.

    Raises InvalidArgumentError for any other name and ConfigurationError where neither the C
    library nor the Python package that does it is installed.
    """

def does_without_gil(name: str) -> bool:
    """Whether the codec's C library was found, so that it runs without the GIL."""

def only_packages(only: bool) -> None:
    """For tests: whether the Python packages do the work although the C libraries are there."""

def packed(name: str, data: bytes) -> bytes | None:
    """For tests: a payload as it would be stored; None where that doesn't save an eighth."""

def unpacked(name: str, data: bytes, raw_size: int) -> bytes:
    """For tests: the payload again; ValueError where it is not one of so many bytes."""
