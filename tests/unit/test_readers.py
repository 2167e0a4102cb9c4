"""Files of text: every reader takes one file in the same way, however its lines end."""

import json
import lzma

import pytest
from small_model import write_folder
from sterna.models.data import END_OF_TEXT, StoriesError, lines_of, read_stories, text_of

STORIES = f"A cat sat.\nIt slept.\n{END_OF_TEXT}\n \t\n{END_OF_TEXT}\n\n" \
          f"The\u2028dog\x0cran\x85home.\n{END_OF_TEXT}\n\n"
WANTED = ["A cat sat.\nIt slept.", "The\u2028dog\x0cran\x85home."]
WAYS = {"plain": lambda text: text.encode(), "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
        "windows": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("readers") / "model")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_stories(tmp_path, way):
    (tmp_path / "s.txt").write_bytes(way(STORIES))
    (tmp_path / "s.txt.xz").write_bytes(lzma.compress(way(STORIES)))
    assert read_stories(tmp_path / "s.txt") == read_stories(tmp_path / "s.txt.xz") == WANTED


def test_only_a_newline_ends_a_line():
    others = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\rh"
    assert lines_of(f"{others}\n\n \u2003\t\n  {others} ") == [others, f"  {others} "]
    assert text_of("\ufeffa\r\n\ufeffb\r".encode()) == "a\n\ufeffb\r"
    with pytest.raises(UnicodeDecodeError):
        text_of("a".encode("utf-16"))


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "s.txt").write_bytes("A cat".encode("utf-16"))
    with pytest.raises(StoriesError, match=r"s.txt is not UTF-8 \(byte 0\)"):
        read_stories(tmp_path / "s.txt")


def test_every_command_reads_alike(sterna, folder, tmp_path):
    found = {}
    for name, way in WAYS.items():
        path = tmp_path / name
        path.write_bytes(way(STORIES))
        code, out, _ = sterna("eval", path, "-m", folder, "--json")
        assert code == 0
        (scored,) = json.loads(out)
        assert scored.pop("file") == str(path)
        path.write_bytes(way("One\u2028 day\x0c\n\nA cat\x85\n"))
        flags = ("-m", folder, "-n", 4, "--device", "golden", "--temp", 0, "--ignore-eos", "-q")
        texts = [sterna("generate", option, path, *flags)[1] for option in ("--prompts", "-f")]
        assert texts[0].startswith("One\u2028 day\x0c") and "\n\nA cat\x85" in texts[0]
        assert texts[1].startswith("One\u2028 day\x0c\n\nA cat\x85\n")
        found[name] = scored, texts
    assert found["plain"][0]["stories"] == 2
    assert found["plain"][0]["bytes"] == sum(len(story.encode()) for story in WANTED)
    assert found["plain"] == found["mark"] == found["windows"]


def test_story_that_the_tokenizer_cannot_hold_is_named_with_its_file(sterna, folder, tmp_path):
    lacking = json.loads((folder / "tokenizer.json").read_text())
    del lacking["model"]["vocab"]["z"]
    other = write_folder(tmp_path / "lacking")
    (other / "tokenizer.json").write_text(json.dumps(lacking))
    (tmp_path / "s.txt").write_text("A zoo.")
    code, out, err = sterna("eval", tmp_path / "s.txt", "-m", other)
    assert (code, out) == (1, "")
    assert f"{tmp_path / 's.txt'}: the tokenizer has no token for 'z'" in err


def test_files_without_anything(sterna, folder, tmp_path):
    for data in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "p").write_bytes(data)
        code, _, err = sterna("generate", "-m", folder, "-f", tmp_path / "p")
        assert code == 1 and "the prompt is empty" in err
    (tmp_path / "p").write_bytes(b"\xef\xbb\xbf\r\n \r\n")
    code, _, err = sterna("generate", "-m", folder, "--prompts", tmp_path / "p")
    assert code == 1 and "holds no prompt" in err
    (tmp_path / "p").write_bytes(f"\ufeff \r\n{END_OF_TEXT}\r\n\t".encode())
    code, _, err = sterna("eval", tmp_path / "p", "-m", folder)
    assert code == 1 and "holds no text" in err
