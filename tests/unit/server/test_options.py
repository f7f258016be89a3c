"""The flags of kvd, refused in the words that the contract fixes."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.errors import ConfigurationError
from kvstore.server.config.options import ServerOptions


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"tls_profile": "prod"}, "unsupported --tls_profile=prod; expected dev or secure"),
        ({"mode": "single"}, "unsupported --mode=single; expected embedded, cluster-node or rados"),
        (
            {"log_level": "loud"},
            "unsupported --log_level=loud; expected debug, info, warning or error",
        ),
        (
            {"tls_profile": "secure"},
            "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH",
        ),
        (
            {"tls_profile": "secure", "tls_cert": "c"},
            "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH",
        ),
        (
            {"tls_profile": "secure", "tls_key": "k"},
            "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH",
        ),
        (
            {"tls_cert": "c", "tls_key": "k"},
            "--tls_cert and --tls_key have no effect with --tls_profile=dev; "
            "use --tls_profile=secure",
        ),
        (
            {"scrub_round_hours": -1},
            "--scrub_round_hours=-1 is not from 0 to 10000; 0 checks nothing in the background",
        ),
        (
            {"scrub_round_hours": 10_001},
            "--scrub_round_hours=10001 is not from 0 to 10000; 0 checks nothing in the background",
        ),
        ({"quota_mib": -1}, "--quota_mib=-1 is below 0; 0 sets no bound"),
        ({"quota_mib": 10**20}, f"--quota_mib={10**20} is above 1000000000; 0 sets no bound"),
    ],
)
def test_contradictions_are_refused(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ServerOptions(**flags)
    assert str(raised.value) == complaint


def test_the_defaults_are_those_of_the_contract() -> None:
    options = ServerOptions()
    assert options.mode == "embedded"
    assert options.listen_addr == "127.0.0.1:50051"
    assert options.data_dir == "./data"
    assert options.tls_profile == "dev"
