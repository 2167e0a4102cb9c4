"""Runs command lines one after the other in one process whose memory is limited; prints a JSON line for each.

Arguments: the limit in MiB above what the process takes before the first one, then the command lines as JSON.
"""

import contextlib
import io
import json
import resource
import sys
from pathlib import Path

from sterna.host import cli


def main(limit_mib, lines):
    taken = int(next(line for line in Path("/proc/self/status").read_text().splitlines()
                     if line.startswith("VmSize")).split()[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (taken + (limit_mib << 20),) * 2)
    for arguments in lines:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(arguments)
        print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
