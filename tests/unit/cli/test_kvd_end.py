"""How kvd ends by what was raised: with a line and a status, whatever it was."""

from __future__ import annotations

import pytest

from kvstore.cli import kvd
from kvstore.errors import ConfigurationError, Error, InvalidArgumentError, StorageError


@pytest.mark.parametrize(
    ("raised", "status", "last"),
    [
        (ConfigurationError("no such mode"), 1, "no such mode"),
        (StorageError("broken", path="/x"), 5, "IO_ERROR: broken in /x"),
        (InvalidArgumentError("156 is below 621"), 1, "InvalidArgumentError: 156 is below 621"),
    ],
)
def test_what_ends_it_is_told_in_a_line(
    raised: Error,
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**options: object) -> None:
        raise raised

    monkeypatch.setattr(kvd.kvd, "main", fail)
    monkeypatch.setattr("sys.argv", ["kvd"])
    monkeypatch.setattr("os.umask", lambda mask: mask)
    with pytest.raises(SystemExit) as end:
        kvd.main()
    assert end.value.code == status
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith(last)
    # Where it was raised is told of a defect alone.
    is_defect = not isinstance(raised, ConfigurationError | StorageError)
    assert (len(lines) > 1) == is_defect
    assert lines[-1].startswith("kvd ended by a defect of its own") == is_defect
