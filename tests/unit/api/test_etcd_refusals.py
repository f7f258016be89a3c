"""What a read of etcd's API says of damage: etcd's words alone, whatever else is known of it."""

from __future__ import annotations

import pytest

from kvstore.api.handlers.etcd.refusals import refusal_of
from kvstore.errors import CorruptionError, IntegrityCode, UnavailableError
from kvstore.etcd_errors import Reason
from kvstore.replica.failing import told_of


@pytest.mark.parametrize(("alone", "reason"), [(True, Reason.CORRUPT), (False, Reason.TIMED_OUT)])
def test_damage_that_a_read_meets_is_told_in_etcds_words(alone: bool, reason: Reason) -> None:
    damage = CorruptionError(
        "a block's checksum differs", code=IntegrityCode.CHECKSUM_MISMATCH, path="000007.sst"
    )
    failure = refusal_of(told_of(damage, UnavailableError, alone=alone))
    assert (failure.code.name, failure.details) == (reason.code, reason.text)
