"""kvctl is called from scripts, again and again: it begins without what only servers need."""

from __future__ import annotations

import subprocess
import sys


def test_kvctl_imports_nothing_that_a_member_is_made_of() -> None:
    program = (
        "import sys, kvstore.cli.kvctl; rooms = ('raft', 'replica', 'server.nodes', 'state'); "
        "print([room for room in rooms if f'kvstore.{room}' in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == "[]\n"


def test_a_get_imports_no_more_of_the_client_than_it_needs() -> None:
    program = (
        "import sys, kvstore.cli.data.get; from kvstore.client import Client; "
        "rooms = ('auth', 'elections', 'health', 'locks', 'maintenance', 'optimistic', 'status'); "
        "print([room for room in rooms if f'kvstore.client.{room}' in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == "[]\n"


def test_a_copy_between_groups_imports_nothing_of_pools_and_servers() -> None:
    """Who installed the command alone has no packages of a server's."""
    program = (
        "import sys, kvstore.cli.transfer.copy; rooms = ('kvstore.beyond', 'kvstore.service', "
        "'kvstore.server.metrics', 'structlog'); print([it for it in rooms if it in sys.modules])"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed == "[]\n"
