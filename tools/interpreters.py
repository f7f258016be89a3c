"""The CPythons of this machine that kvstore is for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["VERSIONS", "interpreter"]

VERSIONS = ("3.11", "3.12", "3.13", "3.14")

# Has headers to build with, is no free-threaded build, and is the version that its name says.
_PROBE = """
import os, sys, sysconfig
assert f"{sys.version_info[0]}.{sys.version_info[1]}" == sys.argv[1]
assert sys.implementation.name == "cpython"
assert not sysconfig.get_config_var("Py_GIL_DISABLED")
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
"""


def _output_of(*command: str) -> str:
    """What a command prints, nothing where it isn't there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def interpreter(version: str) -> str | None:
    """A CPython of this version: of the path, or one of pyenv's."""
    named = shutil.which(f"python{version}")
    found = [] if named is None else [named]
    if root := _output_of("pyenv", "root"):
        found += map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python"), reverse=True))
    for python in found:
        probe = subprocess.run([python, "-c", _PROBE, version], capture_output=True, check=False)
        if probe.returncode == 0:
            return python
    return None
