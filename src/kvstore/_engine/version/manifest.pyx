"""The manifest: which tables make up the database, as a log of checksummed edits (edit.pyx).

File header, 96 bytes:

| offset | size | field |
|---|---|---|
| 0 | 8 | magic "kvmanif\\0" |
| 8 | 4 | format version, 2 |
| 12 | 4 | compatible features |
| 16 | 4 | read-only compatible features |
| 20 | 4 | incompatible features |
| 24 | 8 | number of the manifest |
| 32 | 16 | id of the database |
| 48 | 1 | kind of the checksums, 1: CRC-32C |
| 49 | 3 | zero |
| 52 | 4 | key id, 0: not encrypted |
| 56 | 16 | nonce, zero where the key id is 0 |
| 72 | 20 | zero |
| 92 | 4 | CRC-32C of bytes 0 to 91; also the seed of the edits' checksums |

Edit:

| offset | size | field |
|---|---|---|
| 0 | 4 | bytes of the payload |
| 4 | 4 | CRC-32C of the payload, continued from the seed |
| 8 | 8 | number of the edit |
| 16 | 4 | CRC-32C of bytes 0 to 15, continued from the seed |
| 20 | | payload |

All integers little-endian. Edits are numbered from 1 without a gap, and each is
synced before anything relies on it and before the next is written. So the only edit that a crash
can leave unfinished is the last one, and what it said had no consequence yet: a bad last edit
is left out, a bad edit that another follows is damage. Should the last edit have been durable and
damaged later, its consequences show: a file that it let go of is missing, or the log begins after
the last sequence that the tables then hold.

The first edit of each opening goes into a new manifest that says everything, to which CURRENT then points; so
does a store that has run long, when most of its manifest is about what is past.
"""

import struct

from libc.errno cimport ENOENT
from libc.stdint cimport int64_t, uint64_t

from kvstore._engine.primitives.native import crc32c
from kvstore._engine.files.native cimport (
    LINES_BYTES_MAX,
    Appender,
    FileSystem,
    Overwrite,
    create_file,
    overwrite_of,
    read_whole,
    remove_file,
    rename_file,
    sync_directory,
)
from kvstore._engine.files.native import TwoCopies

from kvstore.errors import CorruptionError, IntegrityCode, StorageError

END = "END"
END_MAGIC = b"kvmanend"
# Number of the manifest in force, bytes of it, segment of the log and offset up to which it is durable.
END_FIELDS = struct.Struct("<QQQQ")
MANIFEST_MAGIC = b"kvmanif\0"
MANIFEST_VERSION = 2
# A hundred times what a million tables between keys of usual length take.
cdef int64_t MANIFEST_BYTES_MAX = 1 << 34
FILE_HEADER = struct.Struct("<8sIIIIQ16sB3sI16s20s")
FORMAT_1_HEADER = struct.Struct("<8sIQ")
EDIT_HEADER = struct.Struct("<IIQ")
CRC = struct.Struct("<I")
FILE_HEADER_BYTES = FILE_HEADER.size + CRC.size
EDIT_HEADER_BYTES = EDIT_HEADER.size + CRC.size
MAX_EDIT_BYTES = 1 << 30
CHECKSUM_CRC32C = 1


# --- encoding -------------------------------------------------------------------------------

def frame_edit(number, bytes payload not None, seed):
    header = EDIT_HEADER.pack(len(payload), crc32c(payload, seed), number)
    return header + CRC.pack(crc32c(header, seed)) + payload


def file_header(number, bytes database_id not None):
    """The header of a manifest; its last four bytes are the seed of the edits' checksums."""
    header = FILE_HEADER.pack(
        MANIFEST_MAGIC, MANIFEST_VERSION, 0, 0, 0, number, database_id, CHECKSUM_CRC32C, bytes(3), 0,
        bytes(16), bytes(20),
    )
    return header + CRC.pack(crc32c(header))


cdef object seed_of(bytes header):
    (seed,) = CRC.unpack_from(header, FILE_HEADER.size)
    return seed


# --- decoding -------------------------------------------------------------------------------

cdef object damaged(str what, str path, offset, code=IntegrityCode.INVALID_RECORD):
    return CorruptionError(what, code=code, path=path, offset=offset)


cdef tuple edit_at(bytes data, Py_ssize_t at, object number, object seed):
    """(payload, end) of a whole, valid edit with this number at this place, or the code that says why not."""
    if len(data) - at < EDIT_HEADER_BYTES:
        return None, IntegrityCode.TRUNCATED_RECORD
    header = data[at : at + EDIT_HEADER.size]
    (crc,) = CRC.unpack_from(data, at + EDIT_HEADER.size)
    if crc32c(header, seed) != crc:
        return None, IntegrityCode.CHECKSUM_MISMATCH
    size, payload_crc, found = EDIT_HEADER.unpack(header)
    if found != number:
        return None, IntegrityCode.INVALID_RECORD
    start = at + EDIT_HEADER_BYTES
    if size > len(data) - start:
        return None, IntegrityCode.TRUNCATED_RECORD
    payload = data[start : start + size]
    if crc32c(payload, seed) != payload_crc:
        return None, IntegrityCode.CHECKSUM_MISMATCH
    return payload, start + size


cdef bint any_edit_after(bytes data, Py_ssize_t at, object number, object seed):
    """Whether a valid edit with this number or a higher one lies at `at` or anywhere behind it.

    Its header is looked for at every byte: the cheap comparison of the number's upper half, zero
    in practice, keeps that fast.
    """
    cdef Py_ssize_t place
    cdef Py_ssize_t end = len(data) - EDIT_HEADER.size - CRC.size
    for place in range(at, end + 1):
        _, _, found = EDIT_HEADER.unpack_from(data, place)
        if number <= found <= number + 1_000_000:
            payload, _ = edit_at(data, place, found, seed)
            if payload is not None:
                return True
    return False


cdef int check_version(bytes data, str path) except -1:
    """Before all else: what another format has in other places can't be judged."""
    if data[:8] != MANIFEST_MAGIC:
        raise damaged("not a manifest", path, 0, IntegrityCode.INVALID_MAGIC)
    (version,) = CRC.unpack_from(data, 8)
    first = FORMAT_1_HEADER.size
    # A changed bit in the version of a format 2 is damage; a later format keeps the checksum there.
    of_format_1 = version == 1 and CRC.unpack_from(data, first)[0] == crc32c(data[:first])
    if not of_format_1:
        if len(data) < FILE_HEADER_BYTES:
            raise damaged("manifest header", path, 0, IntegrityCode.TRUNCATED_RECORD)
        if seed_of(data) != crc32c(data[: FILE_HEADER.size]):
            raise damaged("manifest header checksum", path, 0, IntegrityCode.CHECKSUM_MISMATCH)
    if version != MANIFEST_VERSION:
        raise damaged(
            f"manifest of format {version}, this program reads format {MANIFEST_VERSION}", path, 8,
            IntegrityCode.UNSUPPORTED_VERSION,
        )
    return 0


def check_features(read_only_compatible, incompatible, read_only, str path):
    """Raises where a file needs what this program doesn't know. There is none of it as yet."""
    unknown = incompatible or (0 if read_only else read_only_compatible)
    if unknown:
        kind = "incompatible" if incompatible else "read-only compatible"
        raise damaged(
            f"{kind} feature {unknown & -unknown:#x} is of a later program", path, None,
            IntegrityCode.UNSUPPORTED_VERSION,
        )


def parse_manifest(bytes data not None, uint64_t number, str path, database_id=None, read_only=False):
    """([edits], torn bytes at the end) of a manifest's bytes; CorruptionError where it is damaged.

    Of the database ``database_id``, if that is known.
    """
    if len(data) < FORMAT_1_HEADER.size + CRC.size:
        raise damaged("manifest header", path, 0, IntegrityCode.TRUNCATED_RECORD)
    check_version(data, path)
    (
        _, _, _, read_only_compatible, incompatible, found, owner, checksum, zero, key_id, nonce, more
    ) = FILE_HEADER.unpack_from(data)
    check_features(read_only_compatible, incompatible, read_only, path)
    if checksum != CHECKSUM_CRC32C:
        raise damaged(
            f"checksums of kind {checksum}", path, 48, IntegrityCode.UNSUPPORTED_VERSION
        )
    if key_id or any(nonce):
        raise damaged(
            f"encrypted with key {key_id}, this program reads no encrypted files", path, 52,
            IntegrityCode.UNSUPPORTED_VERSION,
        )
    if any(zero) or any(more):
        raise damaged("manifest header: reserved bytes are not zero", path, 49)
    if found != number:
        raise damaged(f"manifest {found} under the name of {number}", path, 24)
    if database_id is not None and owner != database_id:
        raise damaged("manifest of another database", path, 32)
    return parse_edits(data, seed_of(data), path)


cdef tuple parse_edits(bytes data, object seed, str path):
    edits = []
    at = FILE_HEADER_BYTES
    while at < len(data):
        payload, end = edit_at(data, at, len(edits) + 1, seed)
        if payload is None:
            if not edits or any_edit_after(data, at, len(edits) + 1, seed):
                raise damaged("manifest edit", path, at, end)
            return edits, len(data) - at
        try:
            edits.append(decode_edit(payload))
        except UnknownField as error:
            raise damaged(
                f"manifest edit: {error}", path, at, IntegrityCode.UNSUPPORTED_VERSION
            ) from None
        except ValueError as error:
            raise damaged(f"manifest edit: {error}", path, at) from None
        at = end
    if not edits:
        raise damaged("manifest without an edit", path, at, IntegrityCode.TRUNCATED_RECORD)
    return edits, 0


# --- the files ------------------------------------------------------------------------------

def manifest_name(number):
    return f"MANIFEST-{number:06d}"


cdef uint64_t read_current(FileSystem disk, str directory) except? 0:
    cdef str path = f"{directory}/CURRENT"
    cdef bytes data = read_whole(disk, path, LINES_BYTES_MAX)
    name, _, check = data.rstrip(b"\n").partition(b" ")
    if not data.endswith(b"\n") or check != b"%08x" % crc32c(name):
        raise damaged("CURRENT", path, 0, IntegrityCode.CHECKSUM_MISMATCH)
    if not name.startswith(b"MANIFEST-") or not name[9:].isdigit():
        raise damaged("CURRENT names no manifest", path, 0)
    return int(name[9:])


def end_note(FileSystem disk not None, str directory, bytes database_id not None):
    """The file that says how far the manifest of a database was durable; load() it."""
    return TwoCopies(disk, f"{directory}/{END}", END_MAGIC, database_id)


def note_end(note, uint64_t number, uint64_t size, uint64_t segment, uint64_t offset):
    """Note that so much of the manifest in force is durable, and the log up to that place.

    False: another thread is at it, and the disk hangs. Raises StorageError.
    """
    return note.store(END_FIELDS.pack(number, size, segment, offset))


def first_end(note, uint64_t number, uint64_t size):
    """The bytes of an END that says of a manifest that so much of it is durable; load() says 1 of it."""
    return note.first_of(END_FIELDS.pack(number, size, 0, 0))


def noted_end(bytes noted):
    """(manifest, bytes of it, segment, offset) as END says; zeros where it doesn't."""
    return (0, 0, 0, 0) if noted is None else END_FIELDS.unpack_from(noted)


cdef int check_end(bytes noted, uint64_t number, uint64_t size, bint torn, str path) except -1:
    """That the manifest in force is none before the one that was noted, and no shorter."""
    if noted is None:
        return 0
    newest, end, _, _ = END_FIELDS.unpack_from(noted)
    if number < newest:
        raise damaged(f"CURRENT names an older manifest than {newest}, which was in force", path, None)
    if number == newest and size < end:
        raise damaged(
            f"durable edits of the manifest are gone: it had {end} bytes", path, size,
            IntegrityCode.CHECKSUM_MISMATCH if torn else IntegrityCode.TRUNCATED_RECORD,
        )
    return 0


cdef tuple load_manifest(
    FileSystem disk, str directory, object database_id, bint read_only, bytes noted
):
    cdef uint64_t number = read_current(disk, directory)
    cdef str path = f"{directory}/{manifest_name(number)}"
    try:
        data = read_whole(disk, path, MANIFEST_BYTES_MAX)
    except StorageError as error:
        if error.errno != ENOENT:
            raise
        raise damaged("CURRENT names a manifest that is missing", path, None) from None
    edits, torn = parse_manifest(data, number, path, database_id, read_only)
    check_end(noted, number, len(data) - torn, torn > 0, path)
    return number, edits, len(data) - torn, torn


cdef bytes manifest_owner(FileSystem disk, str directory):
    """The id of the database that the manifest in force says it is of; None where it says nothing."""
    cdef uint64_t number
    try:
        number = read_current(disk, directory)
        data = read_whole(disk, f"{directory}/{manifest_name(number)}", MANIFEST_BYTES_MAX)
        parse_manifest(data, number, directory)
    except StorageError:
        return None
    return FILE_HEADER.unpack_from(data)[6]


cdef class Manifest:
    def append(self, edit):
        """Write an edit: :meth:`sync` makes it durable. After a failure nothing is written."""
        self.check()
        self.file.append(frame_edit(self.edits + 1, encode_edit(edit), self.seed))
        self.edits += 1

    def sync(self):
        """After a failure nobody knows whether the last edit holds: not to be used again."""
        self.check()
        self.file.sync()
        self.durable_bytes = self.file.size

    cdef object append_synced(
        self, object edit, object note, uint64_t segment, uint64_t offset, bint* unsure
    ):
        cdef bytes framed, path, data
        cdef Overwrite then
        unsure[0] = False
        self.check()
        framed = frame_edit(self.edits + 1, encode_edit(edit), self.seed)
        try:
            begun = note.begin(
                END_FIELDS.pack(self.number, self.file.size + <uint64_t> len(framed), segment, offset)
            )
        except MemoryError:
            begun = None
        if begun is not None:
            path, place, data = begun
            overwrite_of(&then, path, place, data)
        try:
            self.file.append_synced(framed, &then if begun is not None else NULL, unsure)
        except BaseException:
            self.edits += unsure[0]
            if begun is not None:
                note.end(False)
            raise
        self.edits += 1
        self.durable_bytes = self.file.size
        if begun is None:
            return None
        # Whatever fails here, the edit holds: nobody may take it for one that failed. Nor runs any
        # Python here, in which a signal's handler could raise: the error is for the caller to make.
        unsure[0] = True
        note.end(then.result >= 0)
        outcome = True if then.result >= 0 else (then.result, <bytes> then.what)
        unsure[0] = False
        return outcome

    def close(self):
        if self.file is not None:
            self.file.close()

    cdef int check(self) except -1:
        if self.file is None:
            raise ValueError("no manifest: begin_manifest makes them")
        return 0

    @property
    def size(self):
        self.check()
        return self.file.size


cdef Manifest begin_manifest(
    FileSystem disk, str directory, uint64_t number, bytes database_id, object everything
):
    cdef Manifest manifest = create_manifest(disk, directory, number, database_id, everything)
    point_current(disk, directory, number)
    sync_directory(disk, directory)
    return manifest


cdef Manifest draft_manifest(
    FileSystem disk, str path, uint64_t number, bytes database_id, object everything
):
    cdef Manifest manifest = Manifest.__new__(Manifest)
    cdef bytes header = file_header(number, database_id)
    manifest.number = number
    manifest.seed = seed_of(header)
    manifest.edits = 1
    manifest.file = create_file(disk, path)
    try:
        manifest.file.append(header + frame_edit(1, encode_edit(everything), manifest.seed))
        manifest.first_bytes = manifest.file.size
        # CURRENT names none that isn't synced, nor does END.
        manifest.durable_bytes = manifest.first_bytes
    except StorageError:
        manifest.file.release()
        remove_quietly(disk, path)
        raise
    return manifest


cdef Manifest create_manifest(
    FileSystem disk, str directory, uint64_t number, bytes database_id, object everything
):
    cdef str path = f"{directory}/{manifest_name(number)}"
    cdef Manifest manifest = draft_manifest(disk, path, number, database_id, everything)
    try:
        manifest.file.sync()
        sync_directory(disk, directory)
    except StorageError:
        manifest.file.release()
        remove_quietly(disk, path)
        raise
    return manifest


cdef bytes current_text(uint64_t number):
    cdef bytes name = manifest_name(number).encode()
    return b"%s %08x\n" % (name, crc32c(name))


cdef int point_current(FileSystem disk, str directory, uint64_t number) except -1:
    cdef str fresh = f"{directory}/CURRENT.new"
    remove_file(disk, fresh)
    cdef Appender file = create_file(disk, fresh)
    try:
        file.append(current_text(number))
        file.sync()
        file.close()
        rename_file(disk, fresh, f"{directory}/CURRENT")
    except StorageError:
        file.release()
        remove_quietly(disk, fresh)
        raise
    return 0


cdef int remove_quietly(FileSystem disk, str path) except -1:
    """What stays behind because this fails is removed by the next opening."""
    try:
        remove_file(disk, path)
    except StorageError:
        pass
    return 0
