"""sterna plan: models by name, numbers, file and folder; what fits and why not; the advice; what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_model import GEOMETRY, write_folder
from sterna.firmware.layout import memory_map
from sterna.host.model.model import Model
from sterna.host.plan import rows as planned
from sterna.host.errors import UsageError
from sterna.host.plan.advice import buy
from sterna.host.plan.mixer import planted, saving, unit_beside
from sterna.host.plan.model import NAMES, geometry_of
from sterna.host.plan.rows import POWER, load_seconds, needs, reasons, row, rows, widened
from sterna.hw.boards import BOARDS, preset
from sterna.models.synthetic.checkpoint import SIZES
from sterna.sim.golden.geometry import Geometry, TreeGeometry

TINY, WIDE = Geometry(40, 48, 2, 264), NAMES["370m"]
FEW = ("icepi-zero", "icebreaker", "lanes40", "lanes40,batch=8")


@pytest.fixture(scope="module")
def few():
    """Rows of a small model."""
    return rows(TINY, FEW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("plan") / "model")


def test_published_geometries_have_their_weights():
    assert SIZES.items() <= NAMES.items()
    assert [NAMES[name].ternary_weights for name in ("370m", "1.3b", "2.7b")] == [341049344, 1298661376, 2619473920]


def test_a_model_by_name_numbers_folder_and_image(folder, tmp_path):
    assert geometry_of("1.3B") == ("1.3b", NAMES["1.3b"]) and geometry_of("40, 48,2,264") == ("40, 48,2,264", TINY)
    (folder / "model.safetensors").rename(tmp_path / "away")  # config.json alone will do
    assert geometry_of(str(folder)) == ("model", GEOMETRY)
    (tmp_path / "away").rename(folder / "model.safetensors")
    image = tmp_path / "small.sterna"
    image.write_bytes(Model(folder).build(preset("sim"), "small"))
    assert geometry_of(str(image)) == ("small", GEOMETRY)


@pytest.mark.parametrize("model, message", [
    ("7b", "no such model '7b': give an image, a checkpoint folder, one of 370m, 1.3b, 2.7b, 13b, or "
           "hidden,intermediate,layers,vocabulary as in 1024,2816,24,32000"),
    ("64,96,2", "geometry '64,96,2': 3 numbers: give hidden,intermediate,layers,vocabulary"),
    ("64,0,2,100", "geometry '64,0,2,100': intermediate is '0': use a whole number from 1 to 1048576"),
    ("64,-5,2,100", "geometry '64,-5,2,100': intermediate is '-5': use a whole number"),
    ("64,9.5,2,100", "intermediate is '9.5': use a whole number"),
    ("64,96,2,99999999999999999999", "vocabulary is '99999999999999999999': use a whole number"),
    ("", "no such model ''")])
def test_what_is_no_model_is_refused_in_one_line(sterna, model, message):
    code, out, err = sterna("plan", model)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1 and err.startswith("error: ")


def test_files_that_hold_no_model_are_refused_in_one_line(sterna, folder, tmp_path):
    image = tmp_path / "cut.sterna"
    image.write_bytes(Model(folder).build(preset("sim"), "cut")[:-100])
    (tmp_path / "empty").mkdir()
    for path in (image, tmp_path / "empty", tmp_path / "none.sterna"):
        code, out, err = sterna("plan", path)
        assert code and not out and err.startswith("error: ") and err.count("\n") == 1 and str(path.name) in err
    code, out, err = sterna("plan", "370m", "--config", "ecpix5")
    assert (code, out) == (2, "") and "unknown preset 'ecpix5': use one of up5k, lanes10" in err


def test_rows_say_what_fits_and_why_not(few):
    found = {one.name: one for one in few}
    assert all(one.fits for one in found.values())
    board, slots = found["icepi-zero"], found["lanes40,batch=8"]
    assert (board.kind, board.clock, found["lanes40"].clock) == ("board", "placed", "projected")
    assert slots.tokens_per_second == pytest.approx(8 * slots.stream_tokens_per_second)
    assert found["lanes40"].tokens_per_second == found["lanes40"].stream_tokens_per_second
    for one in found.values():
        assert 0 < one.share < 1 and one.prompt_tokens_per_second > one.tokens_per_second
    config = preset("icepi-zero")
    assert board.image_bytes == memory_map(config, TINY).state_address < needs(config, TINY)
    big = row("icepi-zero", WIDE)
    assert not big.fits and big.tokens_per_second is None and big.reasons == (
        "memory: needs 103 MB, has 34 MB", "vector memory: bank 0 needs 5920 words and has 4096")
    assert "tokens, counts 65,535" in "; ".join(reasons(preset("up5k"), Geometry(10, 10, 1, 70000)))


def test_a_model_that_no_preset_holds_is_planned_with_more_memory():
    geometry = Geometry(64, 20480, 1, 64)  # codes of 512 words where lanes320 has 256
    config = preset("lanes320")
    assert widened(config, geometry) == {"activation_words": 512}
    one = row("lanes320", geometry)
    assert not one.fits and one.widened == {"activation_words": 512} and one.tokens_per_second > 0
    assert "activation memory" in one.reasons[0]


def test_what_no_wider_memory_mends_is_not_widened_for():
    geometry = Geometry(64, 64, 1 << 20, 64)  # layers that no loop of a program counts
    assert widened(preset("lanes320"), geometry) == {}
    one = row("lanes320", geometry)
    assert (one.fits, one.widened, one.tokens_per_second) == (False, {}, None) and "LOOP count" in one.reasons[-1]


def test_a_memory_that_is_not_known_is_told(sterna, monkeypatch):
    """A board behind the port, of which no Timing is written down."""
    other = replace(preset("lanes40"), name="other")
    monkeypatch.setattr(planned, "preset", lambda name: other if name == "other" else preset(name))
    code, out, _ = sterna("plan", "40,48,2,264", "--config", "other", "--config", "lanes40")
    assert code == 0 and out.count("20 cycles until the first word and no refreshes are assumed") == 1
    assert [one.assumed != "" for one in rows(TINY, ("other", "lanes40", "icebreaker", "icepi-zero"))] == [
        True, False, False, False]


def test_the_time_to_load_is_that_of_the_line(few):
    # 10 MB at 1 Mbaud: 100 s of bare bytes, and 13 bytes more for every 224
    assert load_seconds(10_000_000, 1_000_000) == pytest.approx(105.8, abs=0.1)
    assert few[0].load_seconds == pytest.approx(load_seconds(few[0].image_bytes, BOARDS["icepi-zero"].baud))


def test_the_advice_names_boards_that_exist_or_what_is_needed(few):
    said = buy(TINY, few)
    assert re.fullmatch(r"buy icepi-zero: [\d,]+ tokens/s .*\.", said), said
    twin = replace(few[0], name="twin", tokens_per_second=0.995 * few[0].tokens_per_second)
    assert buy(TINY, [*few, twin]).startswith("buy any of icepi-zero, twin: ")

    def refused(geometry):
        return [replace(one, fits=one.name == "lanes40", needed_bytes=needs(preset(one.name), geometry))
                for one in few]

    none = buy(WIDE, refused(WIDE))
    least = min(memory_map(preset(name), WIDE, check=False).end for name in FEW)
    assert none.startswith("none of the boards here holds this model: it takes a memory of "
                           f"{least / 1e6:.0f} MB, and 10 tokens/s")
    # So many layers that the states take more than the weights.
    deep = Geometry(8, 8, 1 << 20, 8)
    assert "it takes a memory of 512 MB" in buy(deep, refused(deep))
    assert "0.691 GB/s" in none and "timing model lanes40 and 268 MB would make" in none
    assert "would make" not in buy(WIDE, refused(WIDE)[:2])
    wider = [*refused(WIDE)[:2], replace(few[2], fits=False, widened={"memory_bytes": 3 * 10**9})]
    assert "timing model lanes40 and 3,000 MB would make" in buy(WIDE, wider)


def test_energy_is_the_power_of_its_page_over_the_speed(few):
    text = (Path(__file__).resolve().parents[2] / "docs/energy.md").read_text()
    cell = r"([\d.,]+) \(([\d.,]+) to ([\d.,]+)\)"
    cells = re.search(rf"mean power, mW \| {cell} \| {cell}", text).groups()
    likely, low, high, small, smaller, larger = (float(cell.replace(",", "")) / 1000 for cell in cells)
    assert POWER == {"ecp5": pytest.approx((low, likely, high)), "ice40": pytest.approx((smaller, small, larger))}
    board, other, preset_row = few[:3]
    assert board.joules_per_token[1] == pytest.approx(likely / board.tokens_per_second)
    assert other.joules_per_token[1] == pytest.approx(small / other.tokens_per_second)
    assert preset_row.joules_per_token is None


def test_text_and_json_agree(sterna):
    flags = ("plan", "40,48,2,264", "--config", "icepi-zero", "--config", "lanes40,batch=2")
    code, out, err = sterna(*flags, "--json")
    found = json.loads(out)
    assert code == 0 and [one["name"] for one in found["rows"]] == ["icepi-zero", "lanes40,batch=2"]
    assert found["geometry"]["hidden_size"] == 40 and found["buy"].startswith("buy icepi-zero")
    code, text, err = sterna(*flags)
    assert code == 0 and "one stream" in text and "all slots" in text and found["buy"][:20] in text
    assert f"{found['rows'][1]['tokens_per_second']:,.0f}" in text and "\x1b" not in text + err


# ---- Trees ----


def test_trees_in_place_of_a_unit_and_a_unit_beside_trees():
    trees = planted(NAMES["1.3b"], "32x7+4")
    assert trees == TreeGeometry(2048, 32, 7, 4, 24, 32000, NAMES["1.3b"].rms_norm_eps)
    for name, geometry in NAMES.items():
        assert unit_beside(planted(geometry, "1x11")) == geometry, name
    for given, text in ((NAMES["1.3b"], "8"), (NAMES["1.3b"], "0x3"), (trees, "8x9")):
        with pytest.raises(UsageError, match=f"^--tree {text}: [^\\n]+$"):
            planted(given, text)


def test_what_trees_save():
    """The bounds of a unit of 5632 against 8 trees of depth 9, counted by hand; 3 I / 2 N is 105.6."""
    unit = NAMES["1.3b"]
    trees = planted(unit, "8x9")
    one = row("lanes320", trees)
    found = saving(trees, unit, [one, replace(one, name="no", stream_tokens_per_second=None)], [
        replace(one, stream_tokens_per_second=one.stream_tokens_per_second / 2), one])
    assert found.slots == 106 and found.speed == {"lanes320": 2, "no": None}
    assert found.unit_bytes / found.mixer_bytes == pytest.approx(105.6)
    assert found.unit_token_bytes / found.token_bytes == pytest.approx(2.71, abs=0.01)
    assert "(106 times less)" in found.text and "(2.71 times less)" in found.text and "with 106 slots" in found.text


def test_plan_of_trees_tells_the_speed_over_that_of_the_unit(sterna):
    flags = ("plan", "160,640,2,264", "--tree", "4x3+2", "--config", "sim", "--config", "icebreaker")
    code, out, _ = sterna(*flags, "--json")
    found = json.loads(out)
    assert code == 0 and found["geometry"]["trees"] == 4 and found["unit"]["intermediate_size"] == 640
    speed = {one["name"]: one["stream_tokens_per_second"] for one in found["rows"]}
    without = row("sim", Geometry(160, 640, 2, 264)).stream_tokens_per_second
    assert found["unit"]["speed"] == {"sim": speed["sim"] / without, "icebreaker": None}
    assert speed["icebreaker"] is None
    assert 1 < found["unit"]["speed"]["sim"] < found["unit"]["unit_token_bytes"] / found["unit"]["token_bytes"]
    code, out, _ = sterna(*flags)
    text = " ".join(out.split())
    assert code == 0 and f"{found['unit']['speed']['sim']:.2f}" in text and "over GLU" in text
    assert "4 trees of depth 3 and 2 neurons always on (18 of 62 neurons visited)" in text
    assert "over GLU" not in sterna("plan", "160,640,2,264", "--config", "sim")[1]
    code, out, err = sterna("plan", "160,640,2,264", "--tree", "4")
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("error: --tree 4: ")


def test_trees_that_are_too_wide_are_planned_with_more_places():
    geometry = TreeGeometry(64, 700, 1, 0, 1, 64)
    assert widened(preset("lanes320"), geometry) == {"tree_rows": 1400}
    one = row("lanes320", geometry)
    assert not one.fits and one.widened == {"tree_rows": 1400} and one.tokens_per_second > 0
    assert one.reasons[0] == "trees: visits 1,400 neurons, walks 1,024"


def test_a_board_that_is_a_preset_too_is_planned_once():
    assert len(set(planned.names())) == len(planned.names()) and "kv260" in planned.names()
