"""A headless Chromium: Debian's, installed where it is missing."""

import os
from contextlib import contextmanager

from debian import program


@contextmanager
def browser():
    """A browser of playwright's."""
    from playwright.sync_api import sync_playwright
    path = program("chromium", "chromium", "fonts-dejavu-core")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield running
        finally:
            running.close()
