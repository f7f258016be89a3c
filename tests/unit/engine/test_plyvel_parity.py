"""plyvel's behaviour, recorded from plyvel itself, is ours.

Each ``recorded_from_plyvel/*.txt`` is a conversation: a line ``>>> expression`` (or statement) and
the line that answered it: the value, ``!`` and the kind of error, or nothing for None. Where
plyvel answers otherwise (a comment says why ``kvstore`` doesn't) its answer follows after
``plyvel:``, and is that of ``kvstore.compat.plyvel``, too, unless that has a line ``compat:``.

Where plyvel is installed (it has no wheels for every platform and Python that we support) it is
held to the same record. ``python tests/unit/engine/test_plyvel_parity.py`` records a changed
script anew, from all three.
"""

import importlib
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import kvstore

SCRIPTS = sorted((Path(__file__).parent / "recorded_from_plyvel").glob("*.txt"))
COMPAT = "kvstore.compat.plyvel"
ENGINES = ["kvstore", COMPAT, *(["plyvel"] if importlib.util.find_spec("plyvel") else [])]

# Before an answer: whose it is.
OTHERWISE = {"plyvel:": ("plyvel", COMPAT), "compat:": (COMPAT,)}

# What a script can tell apart; the classes' own names differ, what a program catches must not.
KINDS = (StopIteration, KeyError, TypeError, AttributeError, RuntimeError, OSError)


def kind_of(error, module):
    if isinstance(error, module.IteratorInvalidError):
        return "IteratorInvalidError"
    for kind in KINDS:
        if isinstance(error, kind):
            return kind.__name__
    return "Error"


def names_for(engine, directory):
    """The names that scripts use; ``create`` hides that we create databases by default."""
    module = importlib.import_module(engine)

    def create(name="db", **options):
        return module.DB(f"{directory}/{name}", create_if_missing=True, **options)

    def filled(keys, name="db"):
        db = create(name)
        for key in keys.split():
            db.put(key.encode(), key.upper().encode())
        return db

    return module, {
        "create": create,
        "filled": filled,
        "directory": str(directory),
        "DB": module.DB,
        "destroy_db": module.destroy_db,
        "repair_db": module.repair_db,
    }


def questions(script):
    """The script without its answers."""
    return [line for line in script.splitlines() if not line or line.startswith(("#", ">>> "))]


def answers_of(script, engine):
    """The recorded answers of one engine, one for each question."""
    answers = []
    for line in script.splitlines():
        whose, answer = line[:7], line[8:]
        if not line or line.startswith(("#", ">>> ")):
            answers.append("")
        elif whose not in OTHERWISE:
            answers[-1] = line
        elif engine in OTHERWISE[whose]:
            answers[-1] = answer
    return answers


def perform(script, engine, directory):
    """What the engine answers to each question."""
    module, names = names_for(engine, directory)
    answers = []
    for line in questions(script):
        answers.append("")
        if not line.startswith(">>> "):
            continue
        try:
            code = compile(line[4:], "script", "eval")
        except SyntaxError:
            code = compile(line[4:], "script", "exec")
        try:
            value = eval(code, names)
        except Exception as error:  # noqa: BLE001
            answers[-1] = f"! {kind_of(error, module)}"
        else:
            answers[-1] = "" if value is None else repr(value)
    return answers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_answers_are_those_that_plyvel_gave(path, engine, tmp_path):
    script = path.read_text()
    assert [*zip(questions(script), perform(script, engine, tmp_path), strict=True)] == [
        *zip(questions(script), answers_of(script, engine), strict=True)
    ]


def test_every_name_of_plyvel_is_there():
    """The methods of plyvel 1.5.1, class by class."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in {
            kvstore.DB: "approximate_size approximate_sizes close closed compact_range delete get "
            "get_property iterator name prefixed_db put raw_iterator snapshot write_batch __iter__",
            kvstore.PrefixedDB: "db delete get iterator prefix prefixed_db put snapshot "
            "write_batch __iter__",
            kvstore.Snapshot: "close get iterator raw_iterator release __iter__ __enter__",
            kvstore.WriteBatch: "append approximate_size clear delete put write __enter__",
            kvstore.Iterator: "close prev seek seek_to_start seek_to_stop __next__ __enter__",
            kvstore.RawIterator: "close item key next prev seek seek_to_first seek_to_last valid "
            "value __enter__",
        }.items()
        for name in names.split()
        if not hasattr(owner, name)
    ]
    assert missing == []


def record():
    for path in SCRIPTS:
        script = path.read_text()
        answers = []
        for engine in ("kvstore", "plyvel", COMPAT):
            directory = tempfile.mkdtemp()
            try:
                answers.append(perform(script, engine, directory))
            finally:
                shutil.rmtree(directory)
        lines = []
        for question, ours, theirs, compat in zip(questions(script), *answers, strict=True):
            lines.append(question)
            if ours:
                lines.append(ours)
            if theirs != ours:
                lines.append(f"plyvel: {theirs}".rstrip())
            if compat != theirs:
                lines.append(f"compat: {compat}".rstrip())
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(record())
