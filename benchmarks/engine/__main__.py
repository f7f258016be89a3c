"""Measure the engine beside its peers and print tables.

    python -m benchmarks.engine                       # the core: one section of each kind
    python -m benchmarks.engine all
    python -m benchmarks.engine 'reads-*' steady --keys 10000000 --rounds 1
    python -m benchmarks.engine --list

The document (--json) is written anew after each turn, so a run that is interrupted keeps what it
has; `python -m benchmarks.report` makes its tables again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.engine.peers.by_name import TITLES
from benchmarks.engine.sections import CORE, SECTIONS, Section, choose
from benchmarks.engine.tables import engine_report
from benchmarks.engine.turns import Runner


def main() -> None:
    asked = _arguments()
    if asked.list:
        for name, section in SECTIONS.items():
            print(f"{name:22} {section.title}{' (core)' if name in CORE else ''}")
        return
    try:
        sections = choose(asked.sections)
    except KeyError as unknown:
        sys.exit(f"no section is called {unknown}; --list names them")
    if asked.engines:
        unknown_engines = set(asked.engines) - set(TITLES)
        if unknown_engines:
            sys.exit(f"no engine is called {min(unknown_engines)}; there are {', '.join(TITLES)}")
        sections = [
            dataclasses.replace(
                section, engines=[name for name in section.engines if name in asked.engines]
            )
            for section in sections
        ]
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.folder.mkdir(parents=True, exist_ok=True)
    document = measure(sections, asked)
    print("\n".join(engine_report(document["engine_turns"])))
    if any("failure" in turn for turn in document["engine_turns"]):
        sys.exit(1)


def measure(sections: list[Section], asked: argparse.Namespace) -> dict[str, Any]:
    document: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.release()}, "
        f"Python {platform.python_version()}",
        "load_before": os.getloadavg()[0],
        "engine_turns": [],
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="engine-", dir=asked.folder) as folder:
        runner = Runner(Path(folder), asked.keys, asked.rounds)
        try:
            for section in sections:
                started = time.monotonic()
                for told in runner.run(section):
                    document["engine_turns"].append(told)
                    document["load_after"] = os.getloadavg()[0]
                    asked.json.write_text(json.dumps(document))
                    if "failure" in told:
                        print(f"{section.name}: {TITLES[told['engine']]}: {told['failure']}",
                              file=sys.stderr)  # fmt: skip
                now = time.monotonic()
                print(f"{section.name}: {now - started:.0f} s, {now - began:.0f} s in all",
                      file=sys.stderr)  # fmt: skip
        except KeyboardInterrupt:
            print("interrupted; the turns until here:", file=sys.stderr)
        finally:
            runner.close()
    return document


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "sections", nargs="*", default=["core"],
        help="names, shell patterns, 'core' (the default) or 'all'",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="name the sections and end")
    parser.add_argument(
        "--keys", type=_positive, default=300_000, help="with values of 100 bytes (300000)"
    )
    parser.add_argument(
        "--engines", type=lambda text: text.split(","), help="these alone, split by commas"
    )
    parser.add_argument("--rounds", type=_positive, default=3, help="turns of each engine (3)")
    parser.add_argument(
        "--json", type=Path, default=Path("build/engine.json"), help="where the turns go"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("build"), help="on the disk to be measured"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
