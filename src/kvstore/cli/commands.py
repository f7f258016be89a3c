"""The commands of kvctl: where each is, what is said of it, and what people type in its place."""

from __future__ import annotations

from typing import Final

from kvstore.cli.interface.lazy import LazyCommand

__all__ = ["ALIASES", "MEANT", "SECTIONS"]


def _in(room: str, name: str, short_help: str) -> LazyCommand:
    return LazyCommand(f"kvstore.cli.{room}:{name}", short_help)


SECTIONS: Final = {
    "Keys": {
        "put": _in("data.put", "put_command", "store a value"),
        "get": _in("data.get", "get_command", "print values, or keys and their values"),
        "del": _in("data.delete", "delete_command", "remove keys"),
        "list": _in("data.list", "list_command", "list keys and their values, page by page"),
        "count": _in("data.list", "count_command", "count keys"),
        "sizes": _in("data.sizes", "sizes_command", "show what takes the room, by prefix"),
        "incr": _in("data.edit", "incr_command", "add to a number"),
        "edit": _in("data.edit", "edit_command", "change a value in an editor"),
        "txn": _in("data.txn", "txn_command", "do several things at once, on conditions"),
        "watch": _in("data.watch", "watch_command", "print changes as they come"),
        "history": _in("data.watch", "history_command", "print a key's past changes"),
        "compact": _in("data.watch", "compact_command", "forget history before a revision"),
    },
    "Leases, locks and elections": {
        "lease": _in("holding.lease", "lease_group", "grant, renew and revoke leases"),
        "lock": _in("holding.lock", "lock_command", "hold a lock, or run a command under it"),
        "elect": _in("holding.lock", "elect_command", "lead, or see who does"),
    },
    "Servers": {
        "status": _in(
            "cluster.status",
            "status_command",
            "show members, leader, terms, indexes, disk and cache use",
        ),
        "health": _in("cluster.health", "health_command", "ask servers whether they can serve"),
        "top": _in("measuring.top", "top_command", "watch members on a live screen"),
        "member": _in("cluster.member", "member_group", "list, add, promote and remove members"),
        "leader": _in("cluster.member", "leader_group", "hand leadership over"),
        "hash": _in("cluster.hash", "hash_command", "compare what members have of all keys"),
        "alarm": _in("cluster.upkeep", "alarm_group", "list and disarm what has writes refused"),
        "defrag": _in("cluster.upkeep", "defrag_command", "give back the room of what was deleted"),
        "repair": _in(
            "cluster.repair", "repair_command", "check all that members hold, and repair it"
        ),
        "bench": _in("measuring.bench", "bench_command", "measure how fast a server answers"),
        "console": _in(
            "cluster.console", "console_command", "serve pages about the cluster to a browser"
        ),
        "cluster": _in(
            "cluster.local_commands", "cluster_group", "run a local cluster for development"
        ),
    },
    "Files": {
        "export": _in(
            "transfer.export", "export_command", "write keys and values into a file of text"
        ),
        "import": _in(
            "transfer.export", "import_command", "store the keys and values of a file of text"
        ),
        "copy": _in(
            "transfer.copy", "copy_command", "copy keys from one cluster to another, and compare"
        ),
        "snapshot": _in("files.snapshot", "snapshot_group", "save, check and restore backups"),
        "config": _in(
            "files.config", "config_group", "check, show and begin a member's configuration"
        ),
        "verify": _in(
            "files.verify",
            "verify_command",
            "check every byte of a stopped server's or database's files",
        ),
    },
    "The library's databases": {
        "db": _in("database.db", "db_group", "look into a library's database, offline"),
    },
    "At a prompt": {
        "shell": _in("shell.shell", "shell_command", "one command after the other, connected"),
        "completion": _in(
            "shell.completion", "completion_command", "print what completes words in a shell"
        ),
        "version": _in("shell.version", "version_command", "show versions"),
    },
    "Access": {
        "auth": _in("access.auth", "auth_group", "whether users are asked for"),
        "user": _in("access.user", "user_group", "users and their roles"),
        "role": _in("access.role", "role_group", "roles and their permissions"),
        "pki": _in("access.pki", "pki_group", "make certificates for a cluster"),
    },
}

ALIASES: Final = {
    "set": "put",
    "rm": "del",
    "delete": "del",
    "ls": "list",
    "keys": "list",
    "scan": "list",
}

MEANT: Final = {
    "backup": "Did you mean 'snapshot save'?",
    "save": "Did you mean 'snapshot save'?",
    "restore": "Did you mean 'snapshot restore'?",
    "endpoint": "Did you mean 'status'?",
    "info": "Did you mean 'status'?",
    "monitor": "Did you mean 'watch'?",
    "subscribe": "Did you mean 'watch'?",
    "transfer": "Did you mean 'leader transfer'?",
    "promote": "Did you mean 'member promote'?",
    "grant": "Did you mean 'lease grant', or 'user grant-role'?",
    "revoke": "Did you mean 'lease revoke', or 'user revoke-role'?",
    "flush": "There is no such thing to do: what was acknowledged is on disk.",
}
