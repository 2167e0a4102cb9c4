"""The chat page as docs/serving.md shows it: python -m docs.figures.serving.picture (root installs Chromium)."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SAID = ("Once upon a time, there was a little boat that wanted to see the sea.", "One day, a big bird came.")


def main():
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]
    from chromium import browser
    from serving import served
    model = ROOT / "models" / "story" / "story.sterna"
    with served(model, "cpu") as server, browser() as running:
        page = running.new_page(viewport={"width": 920, "height": 560}, color_scheme="light")
        page.goto(server.url)
        page.wait_for_selector("#devices li.alive")
        page.click("#gear")
        for name, value in (("seed", "7"), ("max_tokens", "60")):
            page.fill(f"#settings [name={name}]", value)
        page.click("#gear")
        for number, words in enumerate(SAID):
            page.fill("#prompt", words)
            page.press("#prompt", "Enter")
            page.wait_for_selector(f"#log li:nth-child({2 * number + 2}) #again")
        page.mouse.move(500, 20)
        page.wait_for_timeout(2500)  # what runs where is asked for every two seconds
        page.screenshot(path=ROOT / "docs" / "serving-page.png")


if __name__ == "__main__":
    main()
