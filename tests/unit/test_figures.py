"""The figures of the documentation: keys of the steps, marked places, tables."""

import argparse
import ast
import json
from pathlib import Path

import pytest
from sterna.host.errors import UsageError
from sterna.hw.presets import PRESETS

from docs.figures import boards, causes, cmm, figures, fullboard, fullsize, pages, perf, plan, turns

SYNTHESES = (("lanes10", "ecp5"),)


def test_fill_replaces_marked_places_and_names_the_missing():
    text = "a <!-- figure:x.share -->old<!-- /figure --> b\n<!-- figure:t -->\n\nold\n\n<!-- /figure -->\n" \
           "<!-- figure:none -->kept<!-- /figure -->"
    shown = {"x.share": pages.show("x.share", 0.9512), "t": "one\ntwo"}
    filled, missing = pages.fill(text, shown)
    assert filled == ("a <!-- figure:x.share -->95.1%<!-- /figure --> b\n"
                      "<!-- figure:t -->\n\none\ntwo\n\n<!-- /figure -->\n"
                      "<!-- figure:none -->kept<!-- /figure -->")
    assert missing == ["none"]
    assert pages.fill(filled, shown) == (filled, missing)


def test_tables_hold_what_was_found():
    speed = {"cycles_per_token": 54388.6, "share": 0.42, "tokens_per_second": 1838.6, "clock_mhz": 100,
             **{f"stall_{cause}.share": 0.1 for cause in pages.STALLS}}
    found = {f"speed.sim.{name}": value for name, value in speed.items()}
    found |= {f"synth.lanes10.tree.{cell}": k for k, cell in enumerate(pages.CELLS, 1)}
    found["synth.lanes10.tree.spram"] = 0  # a kind that no unit uses gets no column
    found |= {f"forms.ecp5.{form}.{columns}.per_trit": 100 / columns for form, columns in
              (("portable", 10), ("portable", 20), ("fused", 20))}
    found |= {"placed.ecp5.luts": 269, "placed.ecp5.per_trit": 13.45, "placed.ecp5.flip_flops": 335,
              "placed.ecp5.median.mhz": 183.6, "placed.ecp5.least.mhz": 180.2}
    out = pages.tables({name: pages.show(name, value) for name, value in found.items()}, SYNTHESES)
    assert "| sim | 54,389 | 42.0% | 10.0% | 10.0% | 10.0% | 10.0% | 1,839 at 100 MHz |" in out["table.speed"]
    assert "| lut ram | dsp |" in out["table.synth.lanes10"]
    assert "| tree | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 9 |" in out["table.synth.lanes10"]
    assert out["table.forms"].splitlines()[::2] == ["| family | form | C = 10 | C = 20 |",
                                                    "| ecp5 | portable | 10.0 | 5.0 |"]
    assert out["table.forms"].splitlines()[3] == "| ecp5 | fused |  | 5.0 |"
    assert out["table.placed"].splitlines()[2] == "| ecp5 | 269 | 13.4 | 335 | 183.6 | 180.2 |"
    assert "table.quality" not in out


def test_tables_and_pictures_of_the_boards(tmp_path):
    placed = {"luts.used": 9372, "luts.available": 83640,
              "sync.target.mhz": 80.0, "sync.median.mhz": 88.0, "sync.least.mhz": 79.0,
              "sync.all.mhz": [79.0, 88.0, 90.0],
              "memory.target.mhz": 125.0, "memory.median.mhz": 130.0, "memory.least.mhz": 126.0,
              "memory.all.mhz": [126.0, 130.0, 131.0], "seconds.synthesis": 27.2, "seconds.route": 140.0, "met": 2}
    speed = {"weights": 37_017_600, "cycles_per_token": 2_500_000.0, "share": 0.97, "share.deliverable": 0.988,
             "tokens_per_second": 32.0, "roofline": 33.0}
    values = {"boards.place.ulx3s-85f": placed, "boards.speed.ulx3s-85f.stories37m": speed,
              "boards.units.ulx3s-85f": {"array": 300, "vector": 2000, "how": ""},
              "boards.long.ulx3s-85f": {"cycles": 100_000_001, "tokens": 40}}
    out = boards.tables(values)
    first, second = out["table.boards.place"].splitlines()[2:]
    assert first == "| ulx3s-85f | 9,372 (11%) |  |  |  |  |  | sync | 80.0 | 88.0 | 79.0 | 2 of 3 | 27 + 140 |"
    assert second.endswith("| memory | 125.0 | 130.0 | 126.0 |  |  |")
    # At the median of both clocks the memory's, 1.04 times what was asked for, decides.
    assert out["table.boards.speed"].splitlines()[2] == ("| ulx3s-85f | stories37m | 37.02 M | 2,500,000 | "
                                                         "97.0% | 98.8% | 32.0 | 33.3 | 33.0 |")
    assert out["table.boards.long"].startswith("100,000,001 simulated cycles")
    assert set(boards.draw(values, tmp_path)) == {"picture.boards.clocks", "picture.boards.units"}
    assert all((tmp_path / f"boards-{name}.svg").stat().st_size > 5000 for name in ("clocks", "units"))


def test_results_of_two_processes_are_both_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "figures.json")
    figures.save("a", {"key": "1", "values": {}}, {})
    mine = {}
    figures.save("b", {"key": "2", "values": {}}, mine)
    assert set(json.loads(figures.RESULTS.read_text())) == {"a", "b"} and set(mine) == {"b"}


def test_presets_table_explains_every_parameter():
    rows = [line.split(" | ") for line in pages.presets_table().splitlines()[2:]]
    assert all(len(row) == 3 + len(PRESETS) and row[1].strip() for row in rows)
    assert rows[0][0] == "| `rows`"
    clock = next(row for row in rows if "clock_hz" in row[0])
    assert clock[3 + list(PRESETS).index("sim")].strip() == "100 M"


def test_results_say_how():
    shown = {"lines.hw": "12", "lines.how": "counted by hand", "speed.sim.how": "a", "speed.lanes10.how": "b"}
    assert "| hw/ | 12 |" in pages.tables(shown, SYNTHESES)["table.lines"]
    assert pages.origins(shown) == {"how.lines": "- Lines of code: counted by hand",
                                    "how.speed": "- sim: a\n- lanes10: b"}
    assert pages.fill("<!-- figure:how.lines -->old<!-- /figure -->", pages.origins(shown))[0] == (
        "<!-- figure:how.lines -->\n\n- Lines of code: counted by hand\n\n<!-- /figure -->")


def test_what_was_not_run_stays_on_the_pages(tmp_path, monkeypatch, capsys):
    """In a fresh clone, where no result is kept, ``--only`` changes what it has found and nothing else."""
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "build" / "figures.json")
    (tmp_path / "docs").mkdir()
    pictures = [tmp_path / "docs" / f"{name}.svg" for name in ("boards-clocks", "boards-units", "performance")]
    for path in pictures:
        path.write_text("as drawn")
    speed = {"cycles_per_token": 54388.6, "share": 0.42, "tokens_per_second": 1838.6, "clock_mhz": 100, "how": "new",
             **{f"stall_{cause}.share": 0.1 for cause in pages.STALLS},
             **{f"port_{cause}.cycles": 1.0 for cause in causes.CAUSES}}
    found = {"speed.sim": speed, "lines": {"hw": 12, "how": "counted by hand"},
             "boards.place.icebreaker": {"seconds.route": 1.0, "how": "new"}}
    known = ("speed.sim", "speed.lanes10", "lines", "boards.place.icebreaker", "boards.place.ulx3s-85f",
             "boards.units.icebreaker", "quality")
    monkeypatch.setattr(figures, "steps", lambda options: {
        name: figures.Step(lambda name=name: found[name], (), (), name) for name in known})
    names = ["speed.sim.share", "speed.lanes10.share", "table.speed", "how.speed", "table.lines", "how.lines",
             "table.boards.place", "picture.boards.clocks", "how.boards.place", "table.boards.speed",
             "picture.boards.units", "table.causes", "table.quality", "quality.l1.bits_per_byte", "how.quality"]
    page = tmp_path / "docs" / "results.md"
    (tmp_path / "README.md").write_text("no figures")
    page.write_text("".join(f"<!-- figure:{name} -->old {name}<!-- /figure -->\n" for name in names))
    assert figures.main(["--only", "lines", "--only", "speed.sim", "--only", "boards.place.icebreaker"]) == 0
    changed = {"speed.sim.share", "table.lines", "how.lines"}
    kept = {match[2] for match in pages.MARK.finditer(page.read_text()) if match[3] == f"old {match[2]}"}
    assert set(names) - kept == changed
    assert "| hw/ | 12 |" in page.read_text() and "- Lines of code: counted by hand" in page.read_text()
    assert (tmp_path / "README.md").read_text() == "no figures"
    assert [path.read_text() for path in pictures] == ["as drawn"] * 3
    assert "for steps that were not run: speed.lanes10.share, table.speed, how.speed" in capsys.readouterr().err


def test_every_mark_of_the_results_can_be_made():
    """docs/results.md is a page as the others: each table, picture and list of ways that is made has its place."""
    marks = [match[2] for match in pages.MARK.finditer((figures.ROOT / "docs" / "results.md").read_text())]
    assert [mark for mark in marks if mark.startswith("how.")] == [f"how.{path}" for path in pages.WAYS]
    assert {f"table.synth.{name}" for name, _ in figures.SYNTHESES} | set(boards.PICTURES) <= set(marks)


def imports_of(path):
    """Files of the modules of Sterna that a Python file imports anywhere in its text (set of Path)."""
    package = "sterna." + ".".join(path.relative_to(figures.ROOT).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[:len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    places = [figures.ROOT.joinpath(*name.split(".")[1:]) for name in names if name.startswith("sterna.")]
    return {file for place in places for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}


@pytest.mark.parametrize("sources", [figures.GATEWARE, figures.BOARD, figures.ENCODER],
                         ids=["gateware", "board", "encoder"])
def test_a_result_follows_from_all_that_its_sources_import(sources):
    """No step has a source that its key does not tell: what a file of the sources imports is one of them."""
    files = {file for source in sources for file in figures.files_of(source)}
    missing = {(str(path.relative_to(figures.ROOT)), str(file.relative_to(figures.ROOT)))
               for path in files if path.suffix == ".py" for file in imports_of(path) - files}
    assert files and not missing


# A step of theirs has them as inputs
OWN = {"boards.py", "kria.py", "plan.py", "depth.py", "fullsize.py", "speed.py", "tree", "lanes.py", "scaling.py",
       "turns.py"}


def test_each_kind_of_source_counts(tmp_path, monkeypatch):
    """A result is not that of older sources: of Python, C++ or Verilog, of its own function, or of other tools."""
    options = argparse.Namespace(model=Path("m"), checkpoint=Path("c"), text=Path("t"), stories=0)
    steps = figures.steps(options)
    assert "'tests': " in steps.pop("lines").setting
    for name, step in steps.items():
        read = figures.BOARD
        if name.startswith(("synth", "forms", "placed", "boards.place", "boards.units", "kria")):
            read = figures.GATEWARE
        elif name.startswith("versus"):
            read = figures.CPU
        elif name.startswith(("plan", "lanes")):
            read = figures.MODELLED
        elif name.startswith("depth"):
            read = figures.DEEP
        elif name == cmm.STEP:
            read = cmm.SOURCES
        elif name == figures.serving.STEP:
            read = figures.SERVED
        elif name == turns.STEP:
            read = turns.SOURCES
        elif name.startswith("encoder"):
            read = figures.ENCODER
        assert step.sources == read, name
        assert step.code or OWN & {Path(file).name for file in step.inputs}, name
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    for file in ("sim/board/primitives/cells.v", "sim/board/board.cpp", "firmware/isa.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("one")
        step = figures.Step(None, figures.BOARD)
        before = step.key()
        (tmp_path / file).write_text("two")
        assert step.key() != before, file
    one, two = figures.Step(None, code=(pages.show,)), figures.Step(None, code=(pages.table,))
    before = one.key()
    assert before != two.key()
    monkeypatch.setattr(figures, "versions", lambda *packages: "another yosys")
    assert one.key() != before


def test_a_step_runs_again_only_when_its_inputs_change(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "build" / "figures.json")
    source, runs, results = tmp_path / "input", [], {}
    source.write_text("one")
    step = figures.Step(lambda: runs.append(1) or {"n": len(runs), "how": "counted"}, (), (source,))
    monkeypatch.setattr(figures, "steps", lambda options: {"a.b": step})
    options = argparse.Namespace(only=["a"], force=False)
    for _ in range(2):
        figures.run(options, results)
    assert len(runs) == 1 and "up to date" in capsys.readouterr().out
    source.write_text("two")
    figures.run(options, results)
    assert results["a.b"]["values"]["n"] == 2
    assert figures.RESULTS.exists()


def test_only_takes_whole_words_of_a_path():
    names = ["speed.sim", "speed.sim2", "lines"]
    assert figures.chosen(names, ["speed.sim", "lines"]) == ["speed.sim", "lines"]
    assert figures.chosen(names, ["speed"]) == names[:2]
    with pytest.raises(UsageError, match="--only spee: use one of speed, lines"):
        figures.chosen(names, ["spee"])


def test_causes_of_the_ports_cycles():
    after = {"lanes40": {cause: 1000.0 * k for k, cause in enumerate(causes.CAUSES)}}
    before, now = causes.table(after).splitlines()[2:]
    assert before.startswith("| lanes40 | before |") and now.endswith("| 2,000 | 3,000 | 4,000 | 5,000 | 15,000 |")
    assert causes.BEFORE["lanes40"].keys() == causes.CAUSES.keys()


def test_the_plot_of_causes_is_reproducible(tmp_path):
    after = {"lanes40": {cause: 1000.0 * k for k, cause in enumerate(causes.CAUSES)}}
    causes.draw(after, tmp_path / "a.svg")
    causes.draw(after, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_documentation_names_only_figures_that_exist():
    root = figures.ROOT
    options = argparse.Namespace(model=Path("m"), checkpoint=Path("c"), text=None, stories=0)
    steps = {*figures.steps(options), "demo"}
    tables = {"table.presets", "table.speed", "table.quality", "table.lines", "table.causes",
              "table.slots", "table.drafts", "table.boards.place", "table.boards.speed", "table.boards.long",
              "table.energy", "table.toggles", "table.energy.others", "table.versus", "table.versus.memory",
              "table.fullsize", "table.fullboard", "table.fullboard.slots",
              *(f"table.lanes.{name}" for name in ("speed", "slots", "beyond", "cells")),
              "table.perf", "table.perf.tree", "table.buy", "table.plan", "picture.plan",
              "table.depth", f"table.{turns.STEP}", "table.serving", "how.serving", figures.serving.PICTURE,
              "table.depth.causes", "table.depth.text.370m", "table.depth.text.2.7b",
              "table.scaling", *figures.tree.MADE_OF, *figures.kria.MADE_OF, "learning.text",
              *figures.learning.tables(), *cmm.names(),
              "table.encoder.study", "table.encoder.tasks", "table.encoder.speed",
              *(f"encoder.study.{name}" for name in ("tokens", "unigram", "fff.score", "none.score", "narrow.score")),
              "table.boards.netlist", "table.forms", "table.placed", *boards.PICTURES,
              *(f"how.{path}" for path in (*pages.WAYS, "versus")),
              *(f"table.synth.{name}" for name, _ in figures.SYNTHESES)}
    texts = [page.read_text() for page in (root / "README.md", *(root / "docs").glob("*.md"))]
    used = [match[2] for text in texts for match in pages.MARK.finditer(text)]
    assert used
    for name in used:
        own = name.startswith(("learning.", "table.learning", "picture.learning"))  # test_learning_study has these
        assert own or name in tables or any(f"{name}.".startswith(f"{step}.") for step in steps), name


def test_a_whole_token_is_held_against_what_a_linear_stream_gets():
    found = dict.fromkeys(("cycles", "tokens_per_second", "bound", "stall_stream", "stall_rows", "stall_idle",
                           "vectors"), 1)
    found |= {"share": 0.7, "share_less_refresh": 0.6}
    text = fullboard.tables({f"370m {name}": found for name in ("sim:kv260 measured", "sim:kv260+ultra ddr4",
                                                                "sim:ecpix5-85 MT41K256M16-107")})["table.fullboard"]
    shares = {row.split(" | ")[2]: row.split(" | ")[7] for row in text.splitlines()[2:]}
    assert shares == {"measured": "88.0%", "ddr4": "70.0%", "MT41K256M16-107": "60.0%"}  # of 12.73 and 16.0 GB/s


def test_tables_of_models_of_full_size_say_how_each_was_found():
    found = {"checkpoint_bytes": 1e9, "image_bytes": 1e8, "tokens_per_second": 9.0}
    found |= {f"{step}.{what}": 2.0 for step in fullsize.STEPS for what in ("seconds", "peak_bytes")}
    one, other = found | {"how": "measured here"}, found | {"how": "measured there"}
    said = fullsize.tables({"fullsize.370m": one, "fullsize.1.3b": one})["table.fullsize"]
    assert said.endswith("|\n\nOf each: measured here.")
    said = fullsize.tables({"fullsize.370m": one, "fullsize.1.3b": other})["table.fullsize"]
    assert said.endswith("|\n\n- 370m: measured here.\n- 1.3b: measured there.")


def test_tables_of_the_cycle_model():
    found = {"perf.lanes40b2": {"greedy.known": [0.001, -0.0031], "prompt.known": [0.002],
                                "greedy.assumed": [0.001], "prompt.assumed": [0.009, -0.012], "how": "so"}}
    assert perf.tables(found)["table.perf"].splitlines()[2] == \
        "| lanes40,batch=2 | +0.10% |  |  | -1.20% | -1.20% | -0.31% |"
    assert perf.tables({}) == {} and len(perf.geometries("up5k")) == 3
    found = perf.tables({f"perf.tree.{name}": value for name, value in (("lanes10", found["perf.lanes40b2"]),)})
    assert [*found] == ["table.perf.tree"] and len(found["table.perf.tree"].splitlines()) == 3
    assert perf.tree_geometries("sim")[0].mixer == "tree" and len({*perf.tree_geometries("sim")}) == 3


def test_table_and_picture_of_the_published_models(tmp_path):
    row = {"image_bytes": 104 * 10**6, "stream_tokens_per_second": 8.74, "tokens_per_second": 8.74, "fits": True,
           "prompt_tokens_per_second": 9.6, "share": 0.979, "clock_hz": 80 * 10**6, "clock": "projected"}
    slots = row | {"tokens_per_second": 68.6, "prompt_tokens_per_second": 77.1}
    found = {"plan.370m": {"lanes40": row, f"lanes40,batch={plan.SLOTS}": slots, "buy": "buy nothing"},
             "plan.13b": {"lanes320": row | {"fits": False}, f"lanes320,batch={plan.SLOTS}": slots, "buy": "none"}}
    tables = plan.tables(found)
    lines = tables["table.plan"].splitlines()
    assert lines[2] == "| 370M | lanes40 | 104 MB | 8.74 | 68.6 | 9.6 | 77.1 | 97.9% | 80 MHz projected |"
    assert "| lanes320 with more memory | 104 MB | (8.74) | (68.6) |" in lines[3]
    assert tables["table.buy"].splitlines() == ["- **370M**: buy nothing", "- **13B (assumed geometry)**: none"]
    assert set(plan.draw(found, tmp_path)) == {plan.PICTURE} and (tmp_path / "plan.svg").exists()
    assert plan.draw({}, tmp_path) == {} and plan.tables({}) == {}
