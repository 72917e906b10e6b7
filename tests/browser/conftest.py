"""Pages opened from disk in Chromium, without a network. Run by `make browser`."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SHOTS = Path(os.environ.get("SCREENSHOTS", "out/browser"))
"""Where screenshots are written, to be looked at."""

FLAGS = (
    "--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; Debian's package is called chromium")
    # As root, Chromium runs without its sandbox only. The pages are our own.
    flags = [*FLAGS.split(), *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
    yield running
    running.close()


Opened = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def opened(browser: Browser) -> Opened:
    """Open a file as a page. No request may leave it, and nothing may go wrong or be refused in it."""

    @contextmanager
    def open_file(
        path: Path,
        *,
        width: int = 1200,
        height: int = 900,
        dark: bool = False,
        touch: bool = False,
        fragment: str = "",
    ) -> Iterator[Page]:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            is_mobile=touch,
        )
        page = context.new_page()
        own, asked, wrong = path.resolve().as_uri(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(own + fragment)
        yield page
        outside = [url for url in asked if not url.startswith((own, "data:", "blob:"))]
        context.close()
        assert not outside, f"requests left the page: {outside}"
        assert not wrong, f"the page reports {wrong}"

    return open_file


@pytest.fixture
def shot() -> Callable[[Page, str], None]:
    """Write a screenshot of a whole page, by its name, for a person to look at."""

    def write(page: Page, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    return write
