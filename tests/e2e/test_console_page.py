"""The console's page in a real browser, on a real cluster: every action, by mouse and by keyboard,
at a phone's width, read by a screen reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect, sync_playwright
from tests.e2e.conftest import Operator
from tests.e2e.lib.cluster import Cluster
from tests.e2e.lib.console import account
from tests.e2e.lib.console_world import World, world_of
from tests.e2e.lib.postgres import Postgres
from tests.e2e.lib.s3 import S3
from tests.e2e.lib.tenant import API

pytestmark = pytest.mark.xdist_group("console")
CHROMIUM = "/usr/bin/chromium"
HTML = '"><img src=x onerror=alert(1)>'
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def world(cluster: Cluster, operator: Operator, shared_postgres: Callable[[int], Postgres], shared_s3: S3) -> Iterator[World]:
    with world_of(cluster, shared_postgres, shared_s3) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass
class Visit:
    """One person's browser. `complaints`: what the browser said against the page, such as a breach
    of its content policy."""

    world: World
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)

    def dialog(self, dialog: Dialog) -> None:
        """No page of ours opens one: it would be somebody else's script."""
        self.complaints.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.complaints.append(message.text)

    def go(self, path: str) -> Page:
        self.page.goto(self.world.console.url + path)
        return self.page

    def sign_in(self, who: str) -> Page:
        page = self.go("/")
        page.get_by_label("Token").fill(self.world.tokens[who])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Backups", exact=True)).to_be_visible()
        return page

    def backup(self, name: str = "first") -> Page:
        return self.go(f"/namespaces/{self.world.shop.name}/backups/{name}")


@contextmanager
def visit(browser: Browser, world: World, **options: Any) -> Iterator[Visit]:
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = context.new_page()
    found = Visit(world, context, page)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("dialog", found.dialog)
    page.on("console", found.said)
    try:
        yield found
        assert found.complaints == []
    finally:
        context.close()


@pytest.fixture
def someone(browser: Browser, world: World) -> Iterator[Visit]:
    with visit(browser, world) as found:
        yield found


@pytest.fixture(scope="module")
def leaver(browser: Browser, world: World) -> Iterator[Visit]:
    """Signed in, and then their ServiceAccount went: the last test sees what becomes of them."""
    world.tokens["leaver"] = account(world.shop, "leaver", "view")
    context = browser.new_context()
    found = Visit(world, context, context.new_page())
    found.sign_in("leaver")
    world.shop.run("delete", "serviceaccount", "leaver")
    yield found
    context.close()


def badge(page: Page, text: str) -> Any:
    return page.locator("h1 + .badges .badge", has_text=text)


def test_signing_in_and_out(someone: Visit, leaver: Visit) -> None:
    page = someone.go("/backups?q=first")
    page.get_by_label("Token").fill("no token of ours")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("That is not a token")
    page.get_by_label("Token").fill(someone.world.tokens["admin"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Search", exact=True)).to_have_value("first")  # it leads to where the person was going
    [cookie] = someone.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"] > 0) == (True, "Strict", True)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status").first).to_contain_text("You are signed out")
    someone.go("/backups")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_create_watch_download_pin_and_delete(someone: Visit) -> None:
    page, shop = someone.sign_in("admin"), someone.world.shop
    page.get_by_role("link", name="New backup").click()
    page.get_by_label("Namespace").fill(shop.name)
    page.get_by_label("Connection Secret of the database").fill("db")
    page.get_by_label("Name optional").fill("by-hand")
    page.get_by_role("button", name="Show YAML").click()
    shown = yaml.safe_load(page.get_by_label("What would be applied as YAML").inner_text())
    assert shown["spec"] == {"database": {"secretRef": {"name": "db"}}, "storageRef": {"name": "default"}, "format": "plain"}
    page.get_by_role("button", name="Back up now").click()
    expect(page.get_by_role("status").first).to_contain_text("Backup by-hand was created")
    expect(badge(page, "Completed")).to_be_visible(timeout=60_000)  # by itself: nobody loads the page again
    made = shop.get("databasebackup", "by-hand")
    assert {key: made["spec"][key] for key in shown["spec"]} == {
        **shown["spec"],
        "database": {**made["spec"]["database"], "secretRef": {"name": "db"}},
    }
    assert made["metadata"]["annotations"] == shown["metadata"]["annotations"]

    with page.expect_download() as download:
        page.get_by_role("link", name="Download SQL").click()
    assert download.value.suggested_filename == "by-hand.sql"
    assert download.value.failure() is None
    assert download.value.path().read_bytes().count(b"\n") > 300_000

    page.get_by_role("button", name="Pin").click()
    expect(badge(page, "Pinned")).to_be_visible()
    assert shop.get("databasebackup", "by-hand")["metadata"]["annotations"]["dbbackup.io/pin"] == "true"
    page.get_by_role("button", name="Unpin").click()
    expect(badge(page, "Pinned")).to_have_count(0)

    page.get_by_role("link", name="Delete…").click()
    button = page.get_by_role("button", name="Delete", exact=True)
    expect(button).to_be_disabled()
    page.get_by_label("Type by-hand to confirm").fill("by-han")
    expect(button).to_be_disabled()
    page.get_by_label("Type by-hand to confirm").fill("by-hand")
    button.click()
    expect(page.get_by_role("status").first).to_contain_text("Backup by-hand is being deleted")
    shop.wait_gone("databasebackup", "by-hand")
    assert someone.world.bucket.keys(made["status"].get("artifact", {}).get("key", "none")) == []


def test_restore(someone: Visit, shared_postgres: Callable[[int], Postgres]) -> None:
    page, shop, source = someone.sign_in("admin"), someone.world.shop, someone.world.database
    target = shared_postgres(15).database(f"{source.name}_copy", f"{source.owner}_copy")
    try:
        shop.add_database(target, "copy")
        someone.backup()
        page.get_by_role("link", name="Restore…").click()
        expect(page.get_by_label("Target database", exact=True)).to_have_value(source.name)
        page.get_by_label("Connection Secret of the target").fill("copy")
        page.get_by_label("Target database", exact=True).fill(target.name)
        button = page.get_by_role("button", name="Restore", exact=True)
        page.get_by_label("Type the name of the target database").fill(source.name)
        expect(button).to_be_disabled()
        page.get_by_label("Type the name of the target database").fill(target.name)
        button.click()
        expect(badge(page, "Completed")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("300 000")).to_be_visible()
        assert target.value("SELECT count(*) FROM t") == 300_000
        page.get_by_role("link", name="Restores", exact=True).click()
        expect(page.get_by_role("row").filter(has_text=target.name)).to_contain_text("Completed")
    finally:
        target.server.drop(target.name, target.owner)


def test_schedules(someone: Visit) -> None:
    shop = someone.world.shop
    template = {"spec": {"database": {"secretRef": {"name": "db"}}}}
    spec = {"schedule": "0 3 1 1 *", "template": template}
    shop.apply({"apiVersion": API, "kind": "DatabaseBackupSchedule", "metadata": {"name": "yearly"}, "spec": spec})
    page = someone.sign_in("admin")
    page.get_by_role("link", name="Schedules", exact=True).click()
    page.get_by_role("link", name="yearly").click()
    page.get_by_role("button", name="Suspend").click()
    expect(badge(page, "Suspended")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(badge(page, "Active")).to_be_visible()
    page.get_by_text("Copy as YAML").first.click()
    assert yaml.safe_load(page.get_by_label("Suspend as YAML").inner_text())["metadata"]["annotations"] == {"dbbackup.io/suspend": "true"}
    page.get_by_role("button", name="Run now").click()
    made = shop.wait_until("databasebackupschedule", "yearly", lambda seen: "lastBackupRef" in seen.get("status", {}), 60, "a run")
    page.get_by_role("link", name="Its backups").click()
    expect(page.get_by_role("link", name=made["status"]["lastBackupRef"]["name"], exact=True)).to_be_visible()


def test_a_failure_tells_its_story(someone: Visit) -> None:
    """Names that hold HTML are names: a database of such a name is looked for, and the server's
    answer names it."""
    shop = someone.world.shop
    shop.failed(shop.backup("failed", database={"name": HTML}), "DatabaseNotFound")
    page = someone.sign_in("admin")
    expect(page.get_by_role("row").filter(has_text="failed")).to_contain_text("DatabaseNotFound")
    page.get_by_role("link", name="failed", exact=True).click()
    story = page.get_by_role("region", name="What went wrong")
    expect(story).to_contain_text("DatabaseNotFound")
    expect(story).to_contain_text(HTML)
    expect(story).to_contain_text("What to do")
    expect(story.get_by_label("Last lines of the log")).to_contain_text("error")
    assert page.locator("main img").count() == 0


def test_html_wherever_it_can_be_typed(someone: Visit) -> None:
    page = someone.sign_in("admin")
    someone.world.shop.run("annotate", "databasebackup", "first", f"note={HTML}", "--overwrite")
    someone.backup()
    page.get_by_text("Copy as YAML").first.click()
    expect(page.get_by_label("This object as YAML")).to_contain_text(HTML)
    page.get_by_role("link", name="Backups", exact=True).click()
    page.get_by_label("Search", exact=True).fill(HTML + HTML)
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    someone.go("/backups/new")
    page.get_by_label("Namespace").fill(HTML)
    page.get_by_label("Connection Secret of the database").fill(HTML)
    page.get_by_role("button", name="Back up now").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Connection Secret of the database")).to_have_value(HTML)
    assert page.locator("main img").count() == 0


def test_by_keyboard_alone(someone: Visit) -> None:
    page, shop = someone.page, someone.world.shop
    someone.go("/")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.insert_text(someone.world.tokens["admin"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Backups", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("/")
    expect(page.get_by_label("Search", exact=True)).to_be_focused()
    page.keyboard.type("first")
    expect(page).to_have_url(re.compile("q=first"))
    expect(page.locator("a.row")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="first", exact=True)).to_be_focused()
    with page.expect_response(re.compile(r"/backups\?")):  # the list is refreshed, and the focus stays
        page.evaluate("htmx.ajax('GET', location.pathname + location.search, {source: '#list', target: '#list', swap: 'outerHTML'}).then(() => {})")
    expect(page.get_by_role("link", name="first", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="first")).to_be_visible()
    page.keyboard.press("p")
    expect(badge(page, "Pinned")).to_be_visible()
    page.keyboard.press("p")
    expect(badge(page, "Pinned")).to_have_count(0)
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.suggested_filename == "first.sql"
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Restore", exact=True)).to_be_visible()
    page.keyboard.press("u")
    expect(page.get_by_role("heading", name="first")).to_be_visible()
    for key, heading in (("s", "Schedules"), ("r", "Restores"), ("t", "Storage"), ("b", "Backups")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    page.keyboard.press("n")
    expect(page.get_by_label("Namespace")).to_be_focused()
    page.keyboard.type(shop.name)
    page.keyboard.press("Tab")
    page.keyboard.type("absent")
    page.keyboard.press("Enter")  # sends the form
    expect(page.get_by_role("status").first).to_contain_text("was created")


PATHS = ("/backups", "/restores", "/schedules", "/storages", "/backups/new", "first", "first/restore", "first/delete")


def paths(world: World) -> list[str]:
    return [path if path.startswith("/") else f"/namespaces/{world.shop.name}/backups/{path}" for path in PATHS]


def test_at_a_phones_width(browser: Browser, world: World) -> None:
    with visit(browser, world, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as someone:
        page = someone.sign_in("admin")
        for path in paths(world):
            someone.go(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{path} must be scrolled sideways"
        someone.go("/backups")
        expect(page.locator("tr", has_text="first").get_by_text("Completed")).to_be_visible()


NAMELESS = re.compile(
    r"- (button|link|textbox|searchbox|combobox|checkbox|radio|progressbar|meter|dialog|heading|navigation)(?: \[[^\]]*\])*:?$", re.MULTILINE
)


def test_as_a_screen_reader_hears_it(someone: Visit) -> None:
    page = someone.sign_in("admin")
    for path in paths(someone.world):
        someone.go(path)
        heard = page.locator("body").aria_snapshot()
        assert NAMELESS.findall(heard) == [], f"{path}:\n{heard}"
        assert len(re.findall(r'- heading "[^"]+" \[level=1\]', heard)) == 1, path
        assert '- navigation "Main":' in heard
        assert "- main:" in heard
        assert page.locator("html").get_attribute("lang") == "en"
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]), select')].filter(e => !e.labels.length).map(e => e.name)"
        )
        assert unlabelled == [], path
    someone.go("/backups")
    heard = page.locator("#list").aria_snapshot()
    for words in ('- columnheader "Database"', '- rowheader "first', '- link "Download first"', '- link "Restore first"'):
        assert words in heard, heard


def test_dark_and_light(browser: Browser, world: World) -> None:
    def brightness(page: Page) -> int:
        red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3])
        return (red + green + blue) // 3

    with visit(browser, world, color_scheme="dark") as someone:
        page = someone.sign_in("admin")
        assert brightness(page) < 60, "as the system says"
        page.keyboard.press("t")
        assert brightness(page) > 200, "as the person says"
        page.reload()
        assert brightness(page) > 200, "and so it stays"
    with visit(browser, world, color_scheme="light") as someone:
        assert brightness(someone.sign_in("admin")) > 200


def test_somebody_without_rights(someone: Visit) -> None:
    page = someone.sign_in("nobody")
    expect(page.get_by_role("heading", name="No backups yet")).to_be_visible()
    expect(page.get_by_text("ask an administrator")).to_be_visible()
    someone.backup()
    expect(page.get_by_role("alert")).to_contain_text("may not get databasebackups in namespace")
    someone.go("/backups/new")
    page.get_by_label("Namespace").fill(someone.world.shop.name)
    page.get_by_label("Connection Secret of the database").fill("db")
    page.get_by_role("button", name="Back up now").click()
    expect(page.get_by_role("alert")).to_contain_text("may not create databasebackups")


def test_a_viewer_is_offered_what_a_viewer_may(someone: Visit) -> None:
    page = someone.sign_in("viewer")
    someone.backup()
    expect(page.get_by_text("You may view this backup")).to_be_visible()
    for name in ("Download SQL", "Restore…", "Delete…"):
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    someone.go(f"/namespaces/{someone.world.shop.name}/backups/first/restore")
    page.get_by_label("Type the name of the target database").fill(someone.world.database.name)
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("may not create databaserestores")


def test_without_javascript(browser: Browser, world: World) -> None:
    with visit(browser, world, java_script_enabled=False) as someone:
        page = someone.sign_in("admin")
        page.get_by_label("Search", exact=True).fill("first")
        page.get_by_role("button", name="Show", exact=True).click()
        page.get_by_role("link", name="first", exact=True).click()
        page.get_by_role("button", name="Pin").click()
        expect(badge(page, "Pinned")).to_be_visible()
        page.get_by_role("button", name="Unpin").click()
        page.get_by_role("link", name="Delete…").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("not that of the backup")


def test_an_expired_token_ends_the_session(leaver: Visit) -> None:
    """The open page finds out by itself, says why, and leads back once there is a new token."""
    page = leaver.page
    page.wait_for_url(re.compile(r"/sign-in\?"), timeout=120_000)
    expect(page.get_by_role("alert")).to_contain_text("Your token has expired")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    leaver.go("/backups")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
