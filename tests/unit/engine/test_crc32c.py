"""CRC-32C against published vectors, and the two implementations against each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore._engine.primitives.native import crc32c, crc32c_software

# RFC 3720 appendix B.4, and the check value of the CRC catalogue.
VECTORS = [
    (b"", 0x00000000),
    (b"\x00" * 32, 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c00000000000000000000000000000"
            "14000000000004000000001400000018"
            "28000000000000000200000000000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
]


@pytest.mark.parametrize("function", [crc32c, crc32c_software])
@pytest.mark.parametrize(("data", "expected"), VECTORS)
def test_published_vectors(function, data, expected):
    assert function(data) == expected


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1024, 3071, 3072, 3073, 6144, 10_000, 70_001])
@pytest.mark.parametrize("start", range(8))
def test_hardware_and_software_agree_at_every_alignment(size, start):
    data = memoryview(bytes((i * 131 + i // 251) & 0xFF for i in range(size + start)))[start:]
    assert crc32c(data) == crc32c_software(data)


@given(st.binary(max_size=9000), st.integers(0, 9000))
def test_a_checksum_continues_over_a_split(data, at):
    at = min(at, len(data))
    assert crc32c(data[at:], crc32c(data[:at])) == crc32c_software(data)
