"""What an operator's message becomes in the client's words, and on the console."""

from __future__ import annotations

import dataclasses

import pytest

from kvstore.api.v1 import admin_pb2
from kvstore.client.status import ClusterStatus, MemberStatus
from kvstore.replica.options import ROLES


def test_a_member_is_told_whole() -> None:
    names = [field.name for field in admin_pb2.MemberStatus.DESCRIPTOR.fields]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(MemberStatus))


def test_each_field_has_its_own_value() -> None:
    message = admin_pb2.MemberStatus(role=admin_pb2.ROLE_LEARNER)
    for number, field in enumerate(message.DESCRIPTOR.fields, 1):
        if field.name == "findings":
            message.findings.append(str(number))
        elif field.name != "role":
            text = field.type == field.TYPE_STRING
            setattr(message, field.name, str(number) if text else number)
    (told,) = ClusterStatus.from_message(admin_pb2.StatusResponse(members=[message])).members
    assert told.role == "learner"
    for field in message.DESCRIPTOR.fields:
        if field.name == "findings":
            assert told.findings == tuple(message.findings)
        elif field.name != "role":
            assert getattr(told, field.name) == getattr(message, field.name)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_of_a_replica_has_its_number_on_the_wire(role: str) -> None:
    number = admin_pb2.Role.Value(f"ROLE_{role.upper()}")
    message = admin_pb2.StatusResponse(members=[admin_pb2.MemberStatus(role=number)])
    assert ClusterStatus.from_message(message).members[0].role == role
