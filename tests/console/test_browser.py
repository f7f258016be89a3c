"""The pages in a real Chromium: light and dark, wide and narrow, while the leader is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Access
from kvstore.console.formats import in_link
from tests.console.process import Console
from tests.integration.cluster import Cluster

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Browser, expect

from tests.console.chromium import CHROMIUM, LOOKS, WIDE, Look, Visitor, browser

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here (apt-get install chromium)"
)

HOSTILE = b'app/<img src="//evil.example/x.png" onerror="document.title=1">'
KEYS = {
    b"app/config.json": b'{"colour": "green", "sizes": [1, 2, 3]}',
    b"app/text": b"one\ntwo\nthree",
    b"app/binary": bytes(range(256)),
    b"app/large": b"0123456789abcde\n" * (1 << 16),
    HOSTILE: b"<script>document.title = 'run'</script>",
    b"plain": b"value",
}

PAGES = (
    "/",
    "/keys",
    f"/keys?p={in_link(b'app/')}",
    f"/keys/delete?p={in_link(b'app/')}",
    f"/key?k={in_link(b'app/config.json')}&as=json",
    f"/key?k={in_link(b'app/binary')}",
    f"/key?k={in_link(b'app/large')}",
    f"/key?k={in_link(HOSTILE)}",
    f"/key/edit?k={in_link(b'app/text')}",
    "/key/edit?p=",
    f"/history?k={in_link(b'app/text')}",
    f"/watch?p={in_link(b'app/')}",
    "/members",
    "/members/confirm?do=remove&id=3",
    "/engine",
    "/slow",
    "/backups",
    "/users",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def shown(cluster: Cluster, logs: Path) -> Iterator[Console]:
    """A console of a cluster that has something to show on every page."""
    with cluster.client(timeout=60) as client:
        client.put_many(KEYS)
        client.auth.add_user("eve", "secret")
        client.auth.add_role("readers")
        client.auth.grant_role("eve", "readers")
        client.auth.grant_permission("readers", Access.READ, prefix=b"app/")
        client.put_many((b"many/%05d" % number, b"") for number in range(450))
    with Console(logs, f"--addr={','.join(cluster.clients.values())}", "--write") as console:
        yield console


@pytest.fixture
def wide(chromium: Browser) -> Iterator[Visitor]:
    one = Visitor(chromium, Look("light", WIDE))
    yield one
    assert one.problems() == []
    one.close()


def test_every_page_keeps_the_rules(shown: Console, chromium: Browser) -> None:
    visitor = Visitor(chromium, LOOKS[0])
    problems = []
    for path in PAGES:
        answer = visitor.page.goto(shown.url + path)
        assert answer is not None
        assert answer.status == 200, path
        assert visitor.page.title().endswith("· kvstore"), path
        problems += visitor.problems()
        for look in LOOKS:
            visitor.wear(look)
            problems += [f"{look}: {one}" for one in visitor.violations()]
    assert problems + visitor.problems() == []
    visitor.close()


def test_a_key_is_made_edited_and_deleted_by_hand(shown: Console, wide: Visitor) -> None:
    page = wide.page
    page.goto(f"{shown.url}/key/edit?p={in_link(b'hand/')}")
    page.get_by_label("Key").fill("hand/made <b>é</b>")
    page.get_by_label("Value").fill("\none\ntwo\n")
    page.get_by_role("button", name="Store").click()
    expect(page.locator("pre")).to_have_text("\none\ntwo\n")
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("Value")).to_have_value("\none\ntwo\n")
    page.get_by_label("Value").fill("three")
    page.get_by_role("button", name="Store").click()
    expect(page.locator("pre")).to_have_text("three")
    page.get_by_label("delete it").check()
    page.get_by_role("button", name="Delete").click()
    expect(page).to_have_title("Keys · kvstore")
    expect(page.get_by_text("There is nothing here.")).to_be_visible()


def test_a_form_leaves_no_byte_of_a_text_changed(
    shown: Console, cluster: Cluster, wide: Visitor
) -> None:
    value = "\n\nlines\tand  spaces \u00e9\u202e\n\n".encode()
    with cluster.client() as client:
        client.put(b"same", value)
        wide.page.goto(f"{shown.url}/key/edit?k={in_link(b'same')}")
        wide.page.get_by_role("button", name="Store").click()
        wide.page.wait_for_url("**/key?k=*")
        entry = client.get_entry(b"same")
        assert entry is not None
        assert (entry.value, entry.version) == (value, 2)


def test_a_watch_shows_changes_as_they_come(
    shown: Console, cluster: Cluster, wide: Visitor
) -> None:
    page = wide.page
    page.goto(f"{shown.url}/watch?p={in_link(b'live/')}")
    expect(page.get_by_role("status").first).to_have_text("Watching.")
    rows = page.locator("tbody tr")
    with cluster.client() as client:
        client.put(b"live/<b>1</b>", b"<img src=//evil.example/x>")
        expect(rows.first).to_contain_text("live/<b>1</b>")
        client.put_many((b"live/%03d" % number, b"") for number in range(300))
    expect(rows.first).to_contain_text("live/299")
    assert rows.count() == 200


def test_a_large_value_comes_as_a_file(shown: Console, wide: Visitor) -> None:
    wide.page.goto(f"{shown.url}/key?k={in_link(b'app/large')}")
    with wide.page.expect_download() as download:
        wide.page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == KEYS[b"app/large"]


def test_a_file_that_is_no_backup_is_told(shown: Console, wide: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "x.kvs"
    file.write_bytes(bytes(3 << 20))
    wide.page.goto(f"{shown.url}/backups")
    wide.page.get_by_label("File").set_input_files(file)
    wide.page.get_by_role("button", name="Verify it").click()
    expect(wide.page.locator("#verified")).to_contain_text("It is damaged")


def test_the_keyboard_skips_to_the_page(shown: Console, wide: Visitor) -> None:
    wide.page.goto(shown.url)
    wide.page.keyboard.press("Tab")
    expect(wide.page.get_by_role("link", name="Skip to the page")).to_be_focused()
    wide.page.keyboard.press("Enter")
    expect(wide.page.locator("main")).to_be_focused()


def test_chosen_colours_stay(shown: Console, wide: Visitor) -> None:
    page = wide.page
    page.goto(shown.url)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Colours").select_option("dark")
    page.get_by_role("button", name="Set").click()
    page.goto(f"{shown.url}/keys")
    assert page.evaluate(ground) != light


def test_a_page_that_is_open_follows_the_cluster(
    shown: Console, cluster: Cluster, wide: Visitor
) -> None:
    page = wide.page
    page.goto(shown.url)
    health = page.get_by_role("status").first
    expect(health).to_contain_text("all members answer", timeout=30_000)
    leader = cluster.leader()
    cluster.kill(leader)
    expect(health).to_contain_text(f"silent: {leader}", timeout=30_000)
    expect(health).to_contain_text("leads", timeout=30_000)
    page.goto(f"{shown.url}/key?k={in_link(b'plain')}")
    expect(page.locator("pre")).to_have_text("value")
    page.goto(shown.url)
    cluster.start(leader)
    expect(health).to_contain_text("all members answer", timeout=60_000)
    assert wide.problems() == []


def test_a_cluster_that_is_away_is_told_and_comes_back(
    shown: Console, cluster: Cluster, wide: Visitor
) -> None:
    page = wide.page
    page.goto(shown.url)
    cluster.kill()
    health = page.get_by_role("status").first
    expect(health).to_contain_text("No member answers", timeout=30_000)
    answer = page.goto(f"{shown.url}/keys")
    assert answer is not None
    assert answer.status in (503, 504)
    expect(page.get_by_role("alert")).to_be_visible()
    assert wide.problems(expected=("the server responded with a status of 50",)) == []
    page.goto(shown.url)
    cluster.start()
    expect(health).to_contain_text("all members answer", timeout=60_000)


def test_a_console_that_is_gone_is_told(cluster: Cluster, logs: Path, wide: Visitor) -> None:
    with Console(logs, f"--addr={cluster.clients[1]}") as console:
        wide.page.goto(console.url)
    gone = wide.page.get_by_text("what is shown is old")
    expect(gone).to_be_visible(timeout=30_000)
    assert wide.problems(expected=("ERR_CONNECTION_REFUSED",)) == []
