"""Programs of Debian's that tests run: installed where they are missing, which root may."""

import os
import shutil
import subprocess

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the tests' own PATH may be a bare one


def program(name, *packages):
    """Path (str) of a program, which some packages bring."""
    found = shutil.which(name, path=SYSTEM)
    if found is None:
        assert os.geteuid() == 0, f"{name} is missing: install it (Debian: apt-get install {' '.join(packages)})"
        environment = os.environ | {"PATH": SYSTEM, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", "-qq", *arguments], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        found = shutil.which(name, path=SYSTEM)
    return found
