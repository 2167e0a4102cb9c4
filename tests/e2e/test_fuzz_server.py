"""A short run of fuzz_server.py, whose long one is a command of its own."""

import os

import pytest
from fuzz_server import fuzz


@pytest.mark.rest
def test_no_request_breaks_the_server(tmp_path):
    log = tmp_path / "log"
    with log.open("w") as file:
        found = fuzz(300, int(os.environ.get("STERNA_SEED", "1")), file)
    assert found["requests"] >= 300 and "Traceback" not in log.read_text(), log.read_text()
    assert found["counts"][200] > 20 and found["counts"][400] > 100, found
