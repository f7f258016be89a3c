from typing import Any

class Memory:
    """A buffer; arrays are made of it without a copy."""

class Sink:
    """Takes rows: into a writable 2-D array of bytes, or of any size as data and offsets."""

    rows: int
    data: Memory
    offsets: Memory
    def __init__(self, array: Any = None) -> None: ...
