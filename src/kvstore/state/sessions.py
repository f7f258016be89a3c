"""What the state machine knows of clients' sessions (RIFL, SOSP'15; dissertation §6.3).

A session remembers what its sequences from its floor on got. Below the floor its client has every
answer and sends nothing any more; above, what isn't remembered was never applied. So nothing is
ever guessed. A session that is gone can't come back: its id was drawn once, by whoever proposed it.

Part of the replicated state. Sessions age by the log's clock, and are kept in the order of their
last use, the same on every member.

What is stored for a session, little-endian::

    0   u8   version (1; 2 where one of the sequences was an operation of the model)
    1   u64  floor
    9   u64  time of its last use, in milliseconds of the log's clock
    17  u64  index of the entry of its last use
    25  u32  place of that command in the entry
    29  8 *  words of the sequences from the floor on: 0 not applied, else see requests.word_of
    ..  16 * (version 2) of each of them: u64 the revision that the operation came to, 0 where it
             was none; u64 how many keys it deleted
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.state.commands import SESSION_WINDOW

__all__ = [
    "Session",
    "SessionBounds",
    "SessionParts",
    "Sessions",
    "decode_session",
    "encode_session",
]

SESSIONS_MAX = 16_384
IDLE_MS = 3_600_000
SPARED_MS = 60_000

EXPIRED_MAX = 64
"""Sessions taken out by one entry. Those that are due and still here count as gone."""

_VERSION = 1
_ANSWERS_VERSION = 2
_HEAD = struct.Struct("<BQQQI")
_WORD = struct.Struct("<Q")
_WORD_BYTES = _WORD.size
_ANSWER = struct.Struct("<QQ")
_ANSWER_BYTES = _ANSWER.size

SessionParts: TypeAlias = tuple[int, int, int, int, bytes, bytes]
"""Of a session: floor, time, entry index and place of its last use, words, and what stands for the
answers of operations, of as many sequences or of none."""


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """Rules that all members share.

    ``sessions_max``: sessions at one time. ``idle_ms``: how long one lives without a write.
    ``spared_ms``: at the bound the session that was idle longest makes room for a new one, if it
    was for at least so long; else the new one is refused.
    """

    sessions_max: int = SESSIONS_MAX
    idle_ms: int = IDLE_MS
    spared_ms: int = SPARED_MS


class Session:
    """One session. ``used``: entry index and place in the entry of its last use, at ``used_ms``."""

    __slots__ = ("answers", "floor", "used", "used_ms", "words")

    def __init__(
        self,
        floor: int,
        used_ms: int,
        used: tuple[int, int],
        words: bytes = b"",
        answers: bytes = b"",
    ) -> None:
        self.floor = floor
        self.used_ms = used_ms
        self.used = used
        self.words = bytearray(words)
        """The first eight bytes are the floor's. Never more than the window's."""
        self.answers = bytearray(answers)
        """What operations came to: 16 bytes for each of the first words, up to the last one that
        stands for an operation."""

    @classmethod
    def of_parts(cls, parts: SessionParts) -> Session:
        """From what :meth:`parts` gave."""
        floor, used_ms, index, place, words, answers = parts
        return cls(floor, used_ms, (index, place), words, answers)

    def parts(self) -> SessionParts:
        """All that there is of it."""
        return self.floor, self.used_ms, *self.used, bytes(self.words), bytes(self.answers)

    def advance(self, floor: int) -> None:
        """The client is done with everything below ``floor``."""
        if floor > self.floor:
            del self.words[: (floor - self.floor) * _WORD_BYTES]
            del self.answers[: (floor - self.floor) * _ANSWER_BYTES]
            self.floor = floor

    def find(self, sequence: int) -> int:
        """The word of a sequence from the floor on, 0 if it was never applied."""
        at = (sequence - self.floor) * _WORD_BYTES
        if at >= len(self.words):
            return 0
        word: int = _WORD.unpack_from(self.words, at)[0]
        return word

    def answer(self, sequence: int) -> tuple[int, int]:
        """The revision that an operation came to and how many keys it deleted; of what was none,
        the revision is 0."""
        at = (sequence - self.floor) * _ANSWER_BYTES
        if at >= len(self.answers):
            return 0, 0
        revision, deleted = _ANSWER.unpack_from(self.answers, at)
        return revision, deleted

    def remember(self, sequence: int, word: int, revision: int = 0, deleted: int = 0) -> None:
        """``sequence``, from the floor on and within the window, was applied.

        ``revision``, ``deleted``: see :meth:`answer`.
        """
        at = (sequence - self.floor) * _WORD_BYTES
        assert 0 <= at < SESSION_WINDOW * _WORD_BYTES
        missing = at + _WORD_BYTES - len(self.words)
        if missing > 0:
            self.words += bytes(missing)
        _WORD.pack_into(self.words, at, word)
        if revision:
            at *= _ANSWER_BYTES // _WORD_BYTES
            missing = at + _ANSWER_BYTES - len(self.answers)
            if missing > 0:
                self.answers += bytes(missing)
            _ANSWER.pack_into(self.answers, at, revision, deleted)


def encode_session(session: Session) -> bytes:
    """What is stored for a session."""
    version = _ANSWERS_VERSION if session.answers else _VERSION
    head = _HEAD.pack(version, session.floor, session.used_ms, *session.used)
    if not session.answers:
        return head + session.words
    places = len(session.words) // _WORD_BYTES
    return head + session.words + session.answers.ljust(places * _ANSWER_BYTES, b"\0")


def decode_session(data: bytes) -> Session:
    """A stored session; raises CorruptionError for what encoding can't give."""
    if data[:1] not in (bytes([_VERSION]), bytes([_ANSWERS_VERSION])):
        raise CorruptionError(
            "session of an unknown version", code=IntegrityCode.UNSUPPORTED_VERSION
        )
    has_answers = data[0] == _ANSWERS_VERSION
    each = _WORD_BYTES + _ANSWER_BYTES if has_answers else _WORD_BYTES
    places, rest = divmod(len(data) - _HEAD.size, each)
    if not has_answers <= places <= SESSION_WINDOW or rest:
        raise CorruptionError("session cut short", code=IntegrityCode.TRUNCATED_RECORD)
    _, floor, used_ms, index, place = _HEAD.unpack_from(data)
    words_end = _HEAD.size + places * _WORD_BYTES
    answers_end = words_end + len(data[words_end:].rstrip(b"\0"))
    if has_answers and answers_end == words_end:
        raise CorruptionError("answers of nothing", code=IntegrityCode.INVALID_RECORD)
    answers_end += (words_end - answers_end) % _ANSWER_BYTES
    words, answers = data[_HEAD.size : words_end], data[words_end:answers_end]
    return Session(floor, used_ms, (index, place), words, answers)


class Sessions:
    """All sessions, the one that was idle longest first. One thread at a time."""

    def __init__(self, bounds: SessionBounds, stored: Iterable[tuple[bytes, Session]] = ()) -> None:
        self._bounds = bounds
        self._open = dict(sorted(stored, key=lambda session: session[1].used))

    def __len__(self) -> int:
        return len(self._open)

    @property
    def idle_ms(self) -> int:
        """How long one lives without a write."""
        return self._bounds.idle_ms

    def parts(self, name: bytes) -> SessionParts | None:
        """See the stub of ``kvstore._state.native``."""
        session = self._open.get(name)
        return None if session is None else session.parts()

    def restore(
        self,
        name: bytes,
        floor: int,
        used_ms: int,
        index: int,
        place: int,
        words: bytes,
        answers: bytes,
    ) -> None:
        """See the stub of ``kvstore._state.native``."""
        self._open.pop(name, None)
        self._open[name] = Session(floor, used_ms, (index, place), words, answers)

    def find(self, name: bytes, now_ms: int) -> Session | None:
        """The session ``name``, None if there is none (any more)."""
        session = self._open.get(name)
        if session is None or session.used_ms + self._bounds.idle_ms <= now_ms:
            return None
        return session

    def use(self, name: bytes, now_ms: int, used: tuple[int, int]) -> Session | None:
        """The same, for a command of it that is applied at ``used``."""
        session = self.find(name, now_ms)
        if session is not None:
            session.used_ms = now_ms
            session.used = used
            del self._open[name]
            self._open[name] = session
        return session

    def expire(self, now_ms: int) -> list[bytes]:
        """Take out sessions that are due, not all at once; returns which."""
        due: list[bytes] = []
        for name, session in self._open.items():
            if session.used_ms + self._bounds.idle_ms > now_ms or len(due) == EXPIRED_MAX:
                break
            due.append(name)
        for name in due:
            del self._open[name]
        return due

    def make_room(self, now_ms: int) -> bytes | None:
        """For one more: the session that had to go, b"" if none had to, None if there's no room."""
        if len(self._open) < self._bounds.sessions_max:
            return b""
        name, session = next(iter(self._open.items()))
        if session.used_ms + self._bounds.spared_ms > now_ms:
            return None
        del self._open[name]
        return name

    def open(self, name: bytes, now_ms: int, used: tuple[int, int]) -> bool:
        """Begin a session; False if there is one of that name."""
        if name in self._open:
            return False
        self._open[name] = Session(1, now_ms, used)
        return True
