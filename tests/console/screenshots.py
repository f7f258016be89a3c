"""Pictures of the real thing for its page: ``python -m tests.console.screenshots docs/img``."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from kvstore.client import Access, Client
from kvstore.console.formats import in_link
from tests.console.chromium import NARROW, Look, Visitor, browser
from tests.console.process import Console
from tests.integration.cluster import Cluster, free_addresses

WORK_S = 75.0
# Small enough for a page of text.
WIDTH, HEIGHT = 1000, 640

ORDER = b"shop/orders/2026-11-30/0007"
VERSIONS = (
    b'{\n  "customer": "ann",\n  "items": ["lamp"],\n  "paid": false\n}\n',
    b'{\n  "customer": "ann",\n  "items": ["lamp", "chair"],\n  "paid": true\n}\n',
)

PICTURES = {
    "console-overview.png": ("/", Look("light", WIDTH), HEIGHT),
    "console-overview-narrow.png": ("/", Look("dark", NARROW), 720),
    "console-keys.png": (f"/keys?p={in_link(b'shop/')}", Look("light", WIDTH), 460),
    "console-key.png": (f"/key?k={in_link(ORDER)}&as=json", Look("dark", WIDTH), HEIGHT),
    "console-history.png": (f"/history?k={in_link(ORDER)}", Look("light", WIDTH), 360),
    "console-members.png": ("/members", Look("light", WIDTH), 520),
    "console-engine.png": ("/engine", Look("dark", WIDTH), HEIGHT),
}


def fill(client: Client) -> None:
    for folder, count in (("carts", 12), ("customers", 40), ("sessions", 25), ("stock", 60)):
        client.put_many((f"shop/{folder}/{one:04}".encode(), b"{}") for one in range(count))
    client.put_many((b"shop/orders/2026-11-30/%04d" % one, b"{}") for one in range(30))
    client.put(b"shop/currency", b"EUR")
    client.put(b"shop/name", "Lampen & Stühle".encode())
    for version in VERSIONS:
        client.put(ORDER, version)
    client.auth.add_role("clerks")
    client.auth.grant_permission("clerks", Access.READWRITE, prefix=b"shop/orders/")


def work(client: Client, end: float) -> None:
    """Some load, that rises and falls."""
    chance = random.Random(1)
    while (left := end - time.monotonic()) > 0:
        busy = 40 + int(160 * (1 + chance.random()) * (0.3 + (left % 30) / 30))
        client.put_many((b"load/%05d" % chance.randrange(20_000), bytes(400)) for _ in range(busy))
        time.sleep(0.2)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with Cluster(directory) as cluster:
            metrics = free_addresses(len(cluster.members))
            for member, address in zip(cluster.members, metrics, strict=True):
                cluster.write_config(member, settings=f'metrics_address = "{address}"')
            cluster.start()
            addresses = ",".join(cluster.clients.values())
            with (
                cluster.client(timeout=60) as client,
                Console(
                    directory, f"--addr={addresses}", f"--metrics={','.join(metrics)}", "--write"
                ) as one,
                browser() as chromium,
            ):
                fill(client)
                end = time.monotonic() + WORK_S + 30
                worker = threading.Thread(target=work, args=(client, end))
                worker.start()
                time.sleep(WORK_S)
                for name, (path, look, height) in PICTURES.items():
                    visitor = Visitor(chromium, look)
                    visitor.page.set_viewport_size({"width": look.width, "height": height})
                    visitor.page.goto(one.url + path)
                    visitor.page.wait_for_load_state("networkidle")
                    visitor.page.screenshot(path=target / name)
                    visitor.close()
                worker.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
