"""Scenarios in plain text: a command, ``----``, what came of it.

Words after a command are positional or ``name=value``; a line may carry several commands joined
by nothing: one command a block. ``#`` starts a comment block of its own. See ``COMMANDS`` below
for what there is; ``testdata/*.txt`` for how it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from kvstore.errors import Error
from kvstore.raft import (
    Bundle,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    MessageKind,
    Options,
    SnapshotMeta,
)

from .raft_cluster import Cluster, voters


@dataclass
class Block:
    """One command with the outcome that the file expects; ``command`` empty for comments."""

    comment: str
    command: str
    outcome: str


def read(path: Path) -> list[Block]:
    blocks = []
    for text in path.read_text().split("\n\n"):
        lines = text.strip("\n").split("\n")
        comment = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        if "----" in rest:
            cut = rest.index("----")
            blocks.append(
                Block("\n".join(comment), "\n".join(rest[:cut]), "\n".join(rest[cut + 1 :]))
            )
        else:
            assert not rest, f"{path.name}: a block without ----: {rest}"
            blocks.append(Block("\n".join(comment), "", ""))
    return blocks


def write(path: Path, blocks: list[Block]) -> None:
    parts = []
    for block in blocks:
        lines = [block.comment] if block.comment else []
        if block.command:
            lines += [block.command, "----"] + ([block.outcome] if block.outcome else [])
        parts.append("\n".join(lines))
    path.write_text("\n\n".join(parts) + "\n")


def describe_membership(membership: Membership) -> str:
    text = "voters=" + ",".join(map(str, sorted(membership.voters)))
    if membership.outgoing:
        text += " outgoing=" + ",".join(map(str, sorted(membership.outgoing)))
    if membership.learners:
        text += " learners=" + ",".join(map(str, sorted(membership.learners)))
    return text


def describe_entry(entry: Entry) -> str:
    data = "" if entry.kind is not EntryKind.COMMAND else f" {entry.data.decode()}"
    kind = "" if entry.kind is EntryKind.COMMAND else f" {entry.kind.name}"
    return f"{entry.term}/{entry.index}{kind}{data}"


def describe_snapshot(snapshot: SnapshotMeta) -> str:
    return f"{snapshot.term}/{snapshot.index} {describe_membership(snapshot.membership)}"


def describe_hard_state(state: HardState) -> str:
    text = f"term={state.term} vote={state.vote} commit={state.commit}"
    return text + " damaged" if state.damaged else text


def describe_message(message: Message) -> str:
    text = f"{message.sender}->{message.to} {message.kind.name} term={message.term}"
    for name in ("log_index", "log_term", "hint_index", "commit"):
        value = getattr(message, name)
        if value:
            text += f" {name}={value}"
    if message.context and message.kind not in (MessageKind.READ, MessageKind.READ_RESPONSE):
        text += f" round={message.context}"
    for name in ("reject", "forced", "damaged", "ailing"):
        if getattr(message, name):
            text += f" {name}"
    if message.entries:
        text += " [" + ", ".join(map(describe_entry, message.entries)) + "]"
    if message.snapshot is not None:
        text += f" snapshot {describe_snapshot(message.snapshot)}"
    return text


def describe_bundle(bundle: Bundle) -> list[str]:
    lines = [f"bundle {bundle.number}" + (" must sync" if bundle.must_sync else "")]
    if bundle.hard_state is not None:
        lines.append(f"  hard state {describe_hard_state(bundle.hard_state)}")
    if bundle.snapshot is not None:
        lines.append(f"  snapshot {describe_snapshot(bundle.snapshot)}")
    lines += [f"  write {describe_entry(entry)}" for entry in bundle.entries]
    lines += [f"  send {describe_message(message)}" for message in bundle.messages]
    lines += [f"  apply {describe_entry(entry)}" for entry in bundle.committed]
    lines += [f"  read {state.context} at {state.index}" for state in bundle.read_states]
    lines += [f"  read {context} failed" for context in bundle.reads_failed]
    return lines


class Script:
    """Runs the commands of one file on one cluster."""

    def __init__(self) -> None:
        self.cluster = Cluster(voters(1))

    def run(self, command: str) -> str:
        words = command.split()
        positional = [word for word in words[1:] if "=" not in word]
        named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        run = getattr(self, "do_" + words[0].replace("-", "_"))
        try:
            lines = run(*positional, **named)
        except Error as error:
            lines = [f"{type(error).__name__}: {error}"]
        return "\n".join(lines or [])

    # The cluster

    def do_cluster(self, *members: str, **named: str) -> list[str]:
        """cluster 1 2 3 learners=4 joining=5,6 election_ticks=5 ...: start anew."""
        learners = tuple(map(int, filter(None, named.pop("learners", "").split(","))))
        joining = tuple(map(int, filter(None, named.pop("joining", "").split(","))))
        options = Options(**{name: int(value) for name, value in named.items()})
        self.cluster = Cluster(
            voters(*map(int, members), learners=learners), options=options, joining=joining
        )
        return []

    def do_crash(self, *members: str) -> list[str]:
        """crash 1 2: what isn't durable is gone."""
        for member in members:
            self.cluster.members[int(member)].crash()
        return []

    def do_start(self, member: str, *flags: str) -> list[str]:
        """start 1 [damaged]: from what is durable."""
        self.cluster.members[int(member)].start(damaged="damaged" in flags)
        return self.do_status(member)

    def do_cut_log(self, member: str, index: str) -> list[str]:
        """cut-log 2 5: the disk of a crashed member loses the entries after 5."""
        disk = self.cluster.members[int(member)].disk
        disk.entries = {i: e for i, e in disk.entries.items() if i <= int(index)}
        return []

    def do_isolate(self, *members: str) -> list[str]:
        """isolate 1 2: cut these off from the others."""
        self.cluster.isolate(*map(int, members))
        return []

    def do_heal(self) -> list[str]:
        """heal: all links work again."""
        self.cluster.heal()
        return []

    # Inputs

    def do_tick(self, member: str, count: str = "1") -> list[str]:
        """tick 1 [n]: ticks for one member, nothing else moves."""
        for _ in range(int(count)):
            self.cluster[int(member)].tick()
        return []

    def do_tick_all(self, count: str = "1") -> list[str]:
        """tick-all [n]: ticks for everybody, everything delivered between them."""
        self.cluster.tick(int(count))
        return []

    def do_campaign(self, member: str) -> list[str]:
        self.cluster[int(member)].campaign()
        return []

    def do_elect(self, member: str) -> list[str]:
        """elect 1: campaign and settle until it leads."""
        self.cluster.elect(int(member))
        return [f"{member} leads term {self.cluster[int(member)].term}"]

    def do_win(self, member: str) -> list[str]:
        """win 1: campaign until it leads; all but votes is lost, its first entry too."""
        self.cluster.win(int(member))
        return [f"{member} leads term {self.cluster[int(member)].term}"]

    def do_propose(self, member: str, *payloads: str) -> list[str]:
        at = self.cluster[int(member)].propose([payload.encode() for payload in payloads])
        return [f"proposed {at.term}/{at.first} to {at.term}/{at.last}"]

    def do_members(self, member: str, **named: str) -> list[str]:
        """members 1 voters=1,2 learners=3 force=yes: propose this configuration to member 1."""
        target = voters(
            *map(int, named["voters"].split(",")),
            learners=tuple(map(int, filter(None, named.get("learners", "").split(",")))),
        )
        force = named.get("force") == "yes"
        at = self.cluster[int(member)].propose_membership(target, force=force)
        return [f"proposed {at.term}/{at.first}"]

    def do_read(self, member: str, context: str) -> list[str]:
        self.cluster[int(member)].read_index(int(context))
        return []

    def do_tell_commit(self, member: str) -> list[str]:
        """tell-commit 1: nothing was sent for a while."""
        untold = self.cluster[int(member)].commit_untold
        self.cluster[int(member)].tell_commit()
        return ["somebody lacks it" if untold else "all know it"]

    def do_transfer(self, member: str, to: str) -> list[str]:
        self.cluster[int(member)].transfer_leadership(int(to))
        return []

    def do_storage(self, member: str, outcome: str) -> list[str]:
        """storage 1 ill|well: whether member 1's storage takes what it is given."""
        self.cluster[int(member)].storage_is_well(outcome == "well")
        return []

    def do_compact(self, member: str) -> list[str]:
        """compact 1: make its state machine durable and drop the log but the tail."""
        self.cluster.members[int(member)].compact()
        status = self.cluster[int(member)].status()
        return [f"log {status.first_index}..{status.last_index}"]

    def do_snapshot_status(self, member: str, to: str, outcome: str) -> list[str]:
        """snapshot-status 1 3 ok|failed: tell member 1 of the snapshot for 3."""
        self.cluster[int(member)].snapshot_status(int(to), outcome == "ok")
        return []

    def do_send_snapshot(self, member: str, to: str) -> list[str]:
        """send-snapshot 1 3: the bytes of member 1's present state reach 3, whole."""
        source, target = self.cluster.members[int(member)], self.cluster.members[int(to)]
        mark = source.core.snapshot_meta(source.applied)
        self.cluster.snapshots[mark.index] = tuple(source.state)
        wanted = [
            m for m in self.cluster.wire if m.kind is MessageKind.SNAPSHOT and m.to == target.id
        ]
        self.cluster.wire = [m for m in self.cluster.wire if m not in wanted]
        target.core.step(replace(wanted[0], snapshot=mark))
        return [f"snapshot {describe_snapshot(mark)}"]

    # What comes out

    def do_ready(self, member: str) -> list[str]:
        """ready 1: take and print its bundles; writes wait, messages are on the wire."""
        holder = self.cluster.members[int(member)]
        lines: list[str] = []
        while (bundle := holder.core.ready()) is not None:
            lines += describe_bundle(bundle)
            if bundle.must_sync:
                holder.writing.append(bundle)
            self.cluster.wire += bundle.messages
            holder._apply(bundle)
        return lines or ["nothing"]

    def do_stored(self, member: str, count: str = "") -> list[str]:
        """stored 1 [n]: its oldest n writes (all) are durable."""
        self.cluster.members[int(member)].sync(int(count) if count else None)
        return []

    def do_wire(self) -> list[str]:
        """wire: what is under way."""
        return [describe_message(message) for message in self.cluster.wire] or ["empty"]

    def do_deliver(self, *kinds: str, **named: str) -> list[str]:
        """deliver [KIND...] [to=2] [sender=1]: bring these messages, all by default."""
        chosen = self._chosen(kinds, named)
        self.cluster.wire = [m for m in self.cluster.wire if not any(m is c for c in chosen)]
        for message in chosen:
            self.cluster.deliver(message)
        return [describe_message(message) for message in chosen] or ["nothing"]

    def do_repeat(self, *kinds: str, **named: str) -> list[str]:
        """repeat [KIND...] ...: bring them and keep them on the wire, as doubled messages."""
        chosen = self._chosen(kinds, named)
        for message in chosen:
            self.cluster.deliver(message)
        return [describe_message(message) for message in chosen] or ["nothing"]

    def do_drop(self, *kinds: str, **named: str) -> list[str]:
        """drop [KIND...] ...: lose these messages."""
        chosen = self._chosen(kinds, named)
        self.cluster.wire = [m for m in self.cluster.wire if not any(m is c for c in chosen)]
        return [f"{len(chosen)} lost"]

    def _chosen(self, kinds: tuple[str, ...], named: dict[str, str]) -> list[Message]:
        return [
            message
            for message in self.cluster.wire
            if (not kinds or message.kind.name in kinds)
            and ("to" not in named or message.to == int(named["to"]))
            and ("sender" not in named or message.sender == int(named["sender"]))
        ]

    def do_settle(self) -> list[str]:
        """settle: write, deliver and apply until nothing moves."""
        self.cluster.settle()
        return []

    def do_status(self, *members: str) -> list[str]:
        """status [1 ...]: one line each."""
        lines = []
        for member in self.cluster.up:
            if members and str(member.id) not in members:
                continue
            status = member.core.status()
            line = (
                f"{status.id} {status.role.name} term={status.term} vote={status.vote} "
                f"leader={status.leader} commit={status.commit} durable={status.durable} "
                f"log={status.first_index}..{status.last_index}"
            )
            line += " damaged" if status.damaged else ""
            lines.append(line + (" ailing" if status.ailing else ""))
        return lines

    def do_peers(self, member: str) -> list[str]:
        """peers 1: a leader's view of the others."""
        return [
            f"{peer.member} {peer.state.name} match={peer.match} next={peer.next} "
            f"inflight={peer.inflight_messages}/{peer.inflight_bytes}"
            + (f" pending_snapshot={peer.pending_snapshot}" if peer.pending_snapshot else "")
            + (" damaged" if peer.damaged else "")
            + (" ailing" if peer.ailing else "")
            for peer in self.cluster[int(member)].status().peers
        ]

    def do_membership(self, *members: str) -> list[str]:
        return [
            f"{member.id} {describe_membership(member.core.membership)} "
            f"at {member.core.membership_index}"
            for member in self.cluster.up
            if not members or str(member.id) in members
        ]

    def do_log(self, member: str) -> list[str]:
        """log 2: the entries it keeps."""
        log = self.cluster[int(member)]._state.log
        return [", ".join(map(describe_entry, log.entries)) or "empty"]

    def do_reads(self, member: str) -> list[str]:
        """reads 1: reads that were confirmed or failed since the last time."""
        holder = self.cluster.members[int(member)]
        lines = [f"read {context} at {index}" for context, index in holder.reads.items()]
        lines += [f"read {context} failed" for context in holder.reads_failed]
        holder.reads.clear()
        holder.reads_failed.clear()
        return lines or ["none"]
