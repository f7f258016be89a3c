from typing_extensions import Buffer

def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC-32C of ``data``, continuing from ``value`` (the checksum of the bytes before it)."""

def crc32c_software(data: Buffer, value: int = 0) -> int:
    """The same by tables, whatever the processor can do: what the hardware path is held against."""

def hardware_accelerated() -> bool:
    """Whether this processor has the instruction that :func:`crc32c` uses."""
