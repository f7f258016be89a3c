"""Whose a directory is: a kvd's, one of its members', or, as else, a library's."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_data_directory", "is_of_member"]


def is_data_directory(directory: Path) -> bool:
    """Whether it is that of a kvd."""
    return (directory / "KVSTORE").exists()


def is_of_member(directory: Path) -> bool:
    """Whether it is one member's, or lies right below it."""
    return any(
        (member / "log").is_dir() and (any(member.glob("state-*")) or (member / "LOGEND").exists())
        for member in (directory, directory.parent)
    )
