"""A headless Chromium: Debian's, installed where it is missing."""

import os
import shutil
import subprocess
from contextlib import contextmanager

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def path():
    """Where Chromium is (str); it is installed if need be, which root may."""
    found = shutil.which("chromium", path=SYSTEM)
    if found is None:
        assert os.geteuid() == 0, "chromium is missing: install it (Debian: apt-get install chromium)"
        environment = os.environ | {"PATH": SYSTEM, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
            done = subprocess.run(["apt-get", "-qq", *arguments], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        found = shutil.which("chromium", path=SYSTEM)
    return found


@contextmanager
def browser():
    """A browser of playwright's."""
    from playwright.sync_api import sync_playwright
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path(), args=arguments)
        try:
            yield running
        finally:
            running.close()
