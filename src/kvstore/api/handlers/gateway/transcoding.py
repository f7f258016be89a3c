"""JSON to messages and back, as grpc-gateway has it in etcd: bytes in base64, integers of 64 bits
as strings, enumerations by name, fields under the names that they have in etcd's .proto, and none
that has its default.

Not protobuf's json_format, which takes bytes that are no base64 for some others (a key in plain
text would be one that nobody meant), and makes one string of all. Of what is asked names in
camelCase, integers as numbers and enumerations as numbers are taken as well; names that nobody
knows are passed over, as fields are that gRPC doesn't know.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple, NoReturn

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from kvstore.errors import InvalidArgumentError

__all__ = ["messages_of", "only_message_of", "pieces_of"]

DEPTH_MAX: Final = 64
"""Of messages in messages; protobuf's own bound is 100."""

VALUES_MAX: Final = 131_072
"""Of JSON in one body: objects, lists, and what follows another in either. Eight for each of a
transaction's operations, or of a stream's requests, when they are as many as may be."""

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_BOUNDS: Final = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}
_DIGITS_MAX: Final = 20
_LONG: Final = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)


class _Field(NamedTuple):
    """What is to be known of a message's field. ``take`` makes a value of JSON its own, ``text``
    the other way round; neither is used for messages."""

    name: str
    is_repeated: bool
    is_message: bool
    oneof: str | None
    take: Callable[[Any], Any]
    text: Callable[[Any], str]


class _Malformed(Exception):
    """A value isn't what its field has."""


# --- JSON in -------------------------------------------------------------------------------------


def only_message_of(kind: Any, body: bytes) -> Any:
    """The message that ``body`` has in JSON; the empty one of no JSON at all.

    Raises InvalidArgumentError that says what is wrong with it.
    """
    found = messages_of(kind, body)
    message = next(found, None)
    if message is None:
        return kind()
    if next(found, None) is not None:
        raise InvalidArgumentError("one JSON object, and nothing after it")
    return message


def messages_of(kind: Any, body: bytes) -> Iterator[Any]:
    """The messages in ``body``: any number of JSON objects that follow each other, each read when
    it is asked for.

    Raises InvalidArgumentError that says what is wrong with them.
    """
    # Counted before anything is made of them, for each takes many times its bytes. What a string
    # has of these counts as well: those of etcd's API are in base64, or short.
    if sum(map(body.count, (b"{", b"[", b","))) > VALUES_MAX:
        raise InvalidArgumentError(f"at most {VALUES_MAX} values of JSON in one request")
    try:
        for value in _values_of(body.decode()):
            yield _message_of(kind, value)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the request is no JSON: {error}") from None
    except _Malformed as error:
        raise InvalidArgumentError(str(error)) from None


def _values_of(text: str) -> Iterator[Any]:
    at = _after_space(text, 0)
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        yield value
        at = _after_space(text, at)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} isn't JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _message_of(kind: Any, value: Any) -> Any:
    message = kind()
    _fill(message, value, 1)
    return message


def _fill(message: Any, value: Any, depth: int) -> None:
    if not isinstance(value, dict):
        raise _Malformed("an object is expected")
    if depth > DEPTH_MAX:
        raise _Malformed(f"objects in objects, more than {DEPTH_MAX}")
    fields = _fields_by_name(message.DESCRIPTOR)
    chosen: set[str] = set()
    for name, given in value.items():
        field = fields.get(name)
        if field is None or given is None:
            continue
        if field.oneof is not None:
            if field.oneof in chosen:
                raise _Malformed(f"more than one of {field.oneof}")
            chosen.add(field.oneof)
        try:
            _set(message, field, given, depth)
        except _Malformed as error:
            raise _Malformed(f"{name}: {error}") from None


def _set(message: Any, field: _Field, given: Any, depth: int) -> None:
    if not field.is_repeated:
        if field.is_message:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(inner, given, depth + 1)
        else:
            setattr(message, field.name, field.take(given))
        return
    if not isinstance(given, list):
        raise _Malformed("a list is expected")
    values = getattr(message, field.name)
    for one in given:
        if field.is_message:
            _fill(values.add(), one, depth + 1)
        else:
            values.append(field.take(one))


def _take_bytes(given: Any) -> bytes:
    try:
        return binascii.a2b_base64(_take_string(given), strict_mode=True)
    except ValueError as error:
        raise _Malformed(f"bytes in base64 are expected: {error}") from None


def _take_string(given: Any) -> str:
    if not isinstance(given, str):
        raise _Malformed("a string is expected")
    try:
        given.encode()
    except UnicodeError:
        raise _Malformed("half of a character") from None
    return given


def _take_bool(given: Any) -> bool:
    if not isinstance(given, bool):
        raise _Malformed("true or false is expected")
    return given


def _integers(least: int, most: int) -> Callable[[Any], int]:
    def take(given: Any) -> int:
        if isinstance(given, str) and len(given) <= _DIGITS_MAX:
            digits = given.removeprefix("-")
            if digits.isascii() and digits.isdecimal():
                given = int(given)
        if not isinstance(given, int) or isinstance(given, bool):
            raise _Malformed("an integer is expected")
        if not least <= given <= most:
            raise _Malformed(f"an integer of {least} to {most} is expected")
        return given

    return take


def _names(field: FieldDescriptor) -> Callable[[Any], int]:
    assert field.enum_type is not None
    numbers = {value.name: value.number for value in field.enum_type.values}
    take_number = _integers(*_BOUNDS[FieldDescriptor.TYPE_ENUM])

    def take(given: Any) -> int:
        if isinstance(given, str):
            if given not in numbers:
                raise _Malformed(f"one of {', '.join(numbers)} is expected")
            return numbers[given]
        return take_number(given)

    return take


# --- JSON out ------------------------------------------------------------------------------------


def pieces_of(message: Any) -> Iterator[str]:
    """``message`` in JSON, in pieces of which none has more than one of its innermost messages."""
    if _is_flat(message.DESCRIPTOR):
        yield _flat(message)
        return
    fields = _fields_by_name(message.DESCRIPTOR)
    before = "{"
    for described, value in message.ListFields():
        field = fields[described.name]
        before += f'"{field.name}":'
        if not field.is_message:
            yield before + _text(field, value)
        elif not field.is_repeated:
            yield before
            yield from pieces_of(value)
        else:
            before += "["
            for one in value:
                yield before
                yield from pieces_of(one)
                before = ","
            yield "]"
        before = ","
    yield "{}" if before == "{" else "}"


def _flat(message: Any) -> str:
    fields = _fields_by_name(message.DESCRIPTOR)
    found = ((fields[described.name], value) for described, value in message.ListFields())
    return "{" + ",".join(f'"{field.name}":{_text(field, value)}' for field, value in found) + "}"


def _text(field: _Field, value: Any) -> str:
    if field.is_repeated:
        return "[" + ",".join(map(field.text, value)) + "]"
    return field.text(value)


def _bytes_text(value: bytes) -> str:
    return f'"{binascii.b2a_base64(value, newline=False).decode()}"'


def _bool_text(value: bool) -> str:
    return "true" if value else "false"


def _long_text(value: int) -> str:
    return f'"{value}"'


def _enum_text(field: FieldDescriptor) -> Callable[[int], str]:
    assert field.enum_type is not None
    names = {value.number: f'"{value.name}"' for value in field.enum_type.values}
    return lambda value: names.get(value, str(value))


# --- fields --------------------------------------------------------------------------------------


@cache
def _fields_by_name(kind: Descriptor) -> dict[str, _Field]:
    """By either name of each."""
    fields = {}
    for described in kind.fields:
        fields[described.name] = fields[described.json_name] = _field(described)
    return fields


@cache
def _is_flat(kind: Descriptor) -> bool:
    return not any(field.is_message for field in _fields_by_name(kind).values())


def _field(described: FieldDescriptor) -> _Field:
    kind = described.type
    take: Callable[[Any], Any] = _take_string
    text: Callable[[Any], str] = json.dumps
    if kind == FieldDescriptor.TYPE_BYTES:
        take, text = _take_bytes, _bytes_text
    elif kind == FieldDescriptor.TYPE_BOOL:
        take, text = _take_bool, _bool_text
    elif kind == FieldDescriptor.TYPE_ENUM:
        take, text = _names(described), _enum_text(described)
    elif kind in _BOUNDS:
        take, text = _integers(*_BOUNDS[kind]), _long_text if kind in _LONG else str
    oneof = described.containing_oneof
    return _Field(
        described.name,
        _is_repeated(described),
        kind == FieldDescriptor.TYPE_MESSAGE,
        None if oneof is None else oneof.name,
        take,
        text,
    )


def _is_repeated(described: FieldDescriptor) -> bool:
    # ``label`` is on its way out, its successor isn't in protobuf 4 and 5.
    older: Any = described
    repeated: bool | None = getattr(described, "is_repeated", None)
    return bool(older.label == older.LABEL_REPEATED) if repeated is None else repeated
