"""docs/img/*.png: the console's page in a real browser, with the same objects and the same time in
each run.

python -m tools.screenshots        needs Debian's chromium and its DejaVu fonts
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "operator"), str(ROOT)]

import uvicorn  # noqa: E402 - what follows is found through the path above
from playwright.sync_api import Browser, sync_playwright  # noqa: E402
from tests.unit.support.console_world import NOW, FakeKube, World, backup, obj  # noqa: E402

OUT = ROOT / "docs" / "img"
PORT = 8899
ANNA = "anna@example.com"
LOG = (
    '{"ts":"2026-11-24T11:20:04.120+00:00","level":"info","message":"connecting","host":"db.shop.svc","port":5432}\n'
    '{"ts":"2026-11-24T11:20:04.190+00:00","level":"error","message":"AuthenticationFailed: db.shop.svc:5432 refused user \\"app\\""}'
)
FAILURE = {
    "reason": "AuthenticationFailed",
    "message": 'db.shop.svc:5432: password authentication failed for user "app"',
    "hint": "Check the user and the password in the connection Secret.",
    "logTail": LOG,
}


def _time(**ago: float) -> str:
    return (NOW - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _nightly(number: int) -> dict[str, Any]:
    made = NOW - timedelta(days=number, hours=9)
    ends = made + timedelta(days=30)
    mib = 184 - 2 * number
    status = {
        "size": f"{mib} MiB",
        "sizeBytes": mib << 20,
        "expires": ends.strftime("%Y-%m-%d %H:%M"),
        "expirationTime": ends.isoformat(),
        "duration": f"{52 - number % 7}s",
        "startTime": _time(days=number, hours=9),
        "database": {"name": "shop", "serverVersion": "17.5", "sizeBytes": mib << 23, "tables": 47, "rows": 1_204_117 - 911 * number},
        "artifact": {"key": f"prod/shop/db_5432/shop/{made:%Y%m%dT%H%M%SZ}-nightly-5e0c1f2a", "sha256": "9f86d081884c7d659a2feaa0c55ad015" * 2},
    }
    return backup(f"nightly-{made:%Y%m%d}0300", created=_time(days=number, hours=9), labels={"dbbackup.io/schedule": "nightly"}, status=status)


def objects() -> list[dict[str, Any]]:
    progress = {"percent": 42, "phase": "dumping", "tablesTotal": 47, "tablesDone": 20, "bytesRead": 511 << 20, "bytesStored": 77 << 20}
    asked = {"dbbackup.io/requested-by": ANNA}
    running = {"size": "", "expires": "", "database": {"name": "shop"}, "progress": progress, "startTime": _time(seconds=40)}
    pinned = {"size": "181 MiB", "expires": "pinned", "database": {"name": "shop"}}
    storage = {"s3": {"bucket": "backups", "prefix": "prod", "endpoint": "https://s3.example.com"}, "capacity": "20Gi"}
    usage = {"bytes": 5_400_000_000, "artifacts": 31}
    found = [_nightly(number) for number in range(30)]
    found += [
        backup("before-migration", phase="Completed", created=_time(hours=2), annotations={**asked, "dbbackup.io/pin": "true"}, status=pinned),
        backup("after-migration", phase="Running", created=_time(seconds=41), annotations=asked, status=running),
        backup(
            "staging-1",
            phase="Failed",
            created=_time(minutes=40),
            annotations=asked,
            status={"size": "", "expires": "", "failure": FAILURE, "attempts": 1, "database": {"name": "shop"}},
        ),
        obj(
            "BackupStorage",
            "default",
            spec=storage,
            status={"usage": usage, "checkedAt": _time(hours=3), "conditions": [{"type": "Ready", "status": "True"}]},
        ),
    ]
    return found


@contextmanager
def serving() -> Iterator[str]:
    kube = FakeKube(tokens={"token": ANNA}, rights={ANNA: {"* * *"}})
    kube.put(*objects())
    world = World(kube)
    server = uvicorn.Server(uvicorn.Config(world.app, port=PORT, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        yield f"http://127.0.0.1:{PORT}"
    finally:
        server.should_exit = True
        thread.join()
        world.downloads.close()


def shoot(browser: Browser, url: str, name: str, path: str, width: int, height: int, scheme: Any = "light", typed: str = "") -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"{url}/sign-in?next={path}")
    page.get_by_label("Token").fill("token")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state("networkidle")
    if typed:
        page.locator("#confirm").fill(typed)
    page.screenshot(path=OUT / f"{name}.png", animations="disabled")
    context.close()


def main() -> int:
    OUT.mkdir(exist_ok=True)
    newest = f"/namespaces/shop/backups/{_nightly(0)['metadata']['name']}"
    with serving() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--font-render-hinting=none"])
        shoot(browser, url, "console-list", "/backups", 1100, 640)
        shoot(browser, url, "console-list-dark", "/backups", 1100, 640, "dark")
        shoot(browser, url, "console-failure", "/namespaces/shop/backups/staging-1", 1100, 620)
        shoot(browser, url, "console-restore", f"{newest}/restore", 820, 840, typed="shop")
        shoot(browser, url, "console-phone", "/backups", 360, 740)
        browser.close()
    for path in sorted(OUT.glob("console-*.png")):
        sys.stdout.write(f"{path.relative_to(ROOT)} {path.stat().st_size >> 10} KiB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
