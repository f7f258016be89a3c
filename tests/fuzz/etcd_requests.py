"""Requests of etcd's API at random: well formed, with more than is known, and changed bytes."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from kvstore.api.etcd.methods import MethodShape

KEYS = [b"a", b"b", b"ab", b"k/1", b"k/2"]
ODD_KEYS = [b"\0", b"\xff", b"", b"k" * 300]
ENDS = [b"", b"", b"", b"", b"\0", b"b", b"k0", b"a"]
VALUES = [b"", b"v", b"w" * 200, bytes(4000)]
LEASES = [0] * 9 + [1, 1, 1, 2, 2, -1, (1 << 63) - 1]
REVISIONS = [0] * 12 + [1, 2, 3, 5, 8, 13, 40, -1, (1 << 63) - 1]
NUMBERS = [0, 0, 1, 2, 3, 7, 40, -1, 1 << 31, (1 << 63) - 1, -(1 << 63)]
NAMES = ["root", "root", "alice", "bob", "alice", "bob", "", "n" * 300]
PASSWORDS = ["root", "pw", ""]
# Of messages in lists: what a transaction has in a transaction in it.
DEPTH_MAX = 3

# What fields of these names are filled from: so requests concern the same things, and each other's.
_POOLS: dict[str, list[Any]] = {
    "key": KEYS * 8 + ODD_KEYS,
    "range_end": ENDS,
    "value": VALUES,
    "lease": LEASES,
    "ID": LEASES,
    "revision": REVISIONS,
    "min_mod_revision": REVISIONS,
    "max_mod_revision": REVISIONS,
    "min_create_revision": REVISIONS,
    "max_create_revision": REVISIONS,
    "limit": [0, 0, 0, 1, 2, 3, -1],
    "TTL": [60, 60, 3600, 0, -1, 1 << 40, (1 << 63) - 1],
    "memberID": [0, 1, 2, 3, -1 % (1 << 64)],
    "targetID": [0, 1, 2, 3],
    "name": NAMES,
    "user": NAMES,
    "role": NAMES,
    "password": PASSWORDS,
}
# Without which next to nothing comes of a request.
_WANTED = {
    "key",
    "value",
    "compare",
    "name",
    "user",
    "role",
    "password",
    "TTL",
    "success",
    "failure",
}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class Requests:
    """Draws requests. What they are follows from ``chance`` alone."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def draw(self, shape: MethodShape) -> bytes:
        """The bytes of one: of ten six are well formed, two say more than is known, two are off."""
        data: bytes = self.message(shape.request()).SerializeToString()
        match self._chance.randrange(10):
            case 0:
                return self._changed(data)
            case 1:
                # Still a message, mostly of other fields: protobuf takes whatever parses.
                return self._parsable(shape, data)
            case 2 | 3:
                return data + self._unknown_field()
            case _:
                return data

    def message(self, message: Message, depth: int = 0) -> Message:
        """Fill some of its fields; often next to none, as those that are decoded natively have."""
        density = self._chance.choice([0.03, 0.03, 0.2, 0.5])
        for field in message.DESCRIPTOR.fields:
            likely = 0.98 if field.name in _WANTED else density
            if field.containing_oneof is None and self._chance.random() < likely:
                self._fill(message, field, depth)
        for oneof in message.DESCRIPTOR.oneofs:
            if self._chance.random() < 0.98:
                self._fill(message, self._chance.choice(oneof.fields), depth)
        return message

    def _fill(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if _is_repeated(field):
            for _ in range(self._chance.choice([0, 1, 1, 2, 3])):
                if field.message_type is None:
                    getattr(message, field.name).append(self._value(field))
                elif depth < DEPTH_MAX:
                    self.message(getattr(message, field.name).add(), depth + 1)
        elif field.message_type is None:
            setattr(message, field.name, self._value(field))
        else:
            self.message(getattr(message, field.name), depth + 1)
            getattr(message, field.name).SetInParent()

    def _value(self, field: FieldDescriptor) -> Any:
        chance = self._chance
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            # Those that ask for a key that is there are refused where it isn't, and all with them.
            return chance.random() < (0.02 if field.name.startswith("ignore_") else 0.15)
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return chance.choice([99, -1] if chance.random() < 0.03 else known)
        pool = _POOLS.get(field.name)
        if pool is None or chance.random() < 0.03:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return chance.randbytes(chance.choice([0, 1, 5, 40]))
            if field.type == FieldDescriptor.TYPE_STRING:
                return "".join(chr(chance.choice([0, 65, 97, 0x2028, 0x1F600])) for _ in range(3))
            pool = NUMBERS
        value = chance.choice(pool)
        if isinstance(value, int):
            low, high = _INTEGERS[field.cpp_type]
            value = min(max(value, low), high)
        elif isinstance(value, str) and field.type == FieldDescriptor.TYPE_BYTES:
            value = value.encode()
        return value

    def _unknown_field(self) -> bytes:
        """Of a number that no message has, in each wire type but groups, which have ended."""
        body = self._chance.randbytes(5)
        return self._chance.choice(
            [
                b"\xf8\x3f\x07",
                b"\xfa\x3f\x05" + body,
                b"\xfd\x3f" + body[:4],
                b"\xf9\x3f" + bytes(8),
            ]
        )

    def _changed(self, data: bytes) -> bytes:
        changed = bytearray(data or b"\0")
        for _ in range(self._chance.randrange(1, 4)):
            place = self._chance.randrange(len(changed))
            match self._chance.randrange(4):
                case 0:
                    changed[place] = self._chance.randrange(256)
                case 1:
                    changed[place:place] = self._chance.randbytes(self._chance.randrange(1, 4))
                case 2:
                    changed[place] ^= 1 << self._chance.randrange(8)
                case _:
                    del changed[place:]
                    changed = changed or bytearray(b"\0")
        return bytes(changed)

    def _parsable(self, shape: MethodShape, data: bytes) -> bytes:
        for _ in range(20):
            changed = self._changed(data)
            try:
                shape.request.FromString(changed)
            except DecodeError:
                continue
            return changed
        return data


def _is_repeated(field: Any) -> bool:
    # ``label`` is on its way out, its successor isn't in protobuf 4 and 5.
    repeated: bool | None = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if repeated is None else repeated
