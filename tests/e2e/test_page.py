"""The chat page in a real browser: what a person does with it, by mouse and by keyboard alone."""

import re
from pathlib import Path

import pytest
from chromium import browser
from serving import served
from sterna.host.server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.rest, pytest.mark.browser]
ANSWER = "#log li.assistant:last-child"


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def server():
    with served(ROOT / "models" / "tiny" / "tiny.sterna", "cpu", Settings(context=100_000)) as running:
        yield running


@pytest.fixture
def page(chromium, server):
    context = chromium.new_context(viewport={"width": 1000, "height": 680})
    page, wrong = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(server.url) else None)
    page.wrong = wrong
    page.goto(server.url)
    page.wait_for_selector("#devices li.alive")
    yield page
    context.close()
    assert not wrong, wrong


def settings(page, **values):
    """Sets parameters."""
    page.click("#gear")
    for name, value in values.items():
        page.fill(f"#settings [name={name}]", value)
    page.click("#gear")


def until(page, condition):
    """Waits for a condition; playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(500):
        if condition():
            return
        page.wait_for_timeout(20)
    raise AssertionError("it does not come true")


def send(page, words):
    page.fill("#prompt", words)
    page.press("#prompt", "Enter")


def say(page, words):
    """Sends a message; waits for the end of its answer and gives it."""
    send(page, words)
    page.wait_for_selector(f"{ANSWER} #again")
    return page.inner_text(f"{ANSWER} .text")


def test_a_conversation(page, server):
    settings(page, seed="5", max_tokens="30", temperature="1")
    answer = say(page, "Once upon a time")
    with server.engine.generate("Once upon a time", 30, temperature=1.0, seed=5) as generation:
        assert answer.strip() == generation.result().strip()
    assert re.search(r"30 tokens, [\d.]+ tokens/s", page.inner_text(f"{ANSWER} .note"))
    assert "prompt of 5 tokens" in page.inner_text("#speed")
    assert page.inner_text("#title") == "Once upon a time" and page.inner_text("#model") == "tiny"
    assert "cpu" in page.inner_text("#devices") and "tokens made" in page.inner_text("#devices")
    say(page, "Then it rained.")
    assert page.locator("#log li").count() == 4
    page.reload()
    page.click("#list .pick")
    assert page.locator("#log li").count() == 4 and answer == page.locator("#log .assistant .text").first.inner_text()
    page.click("#new")
    assert page.locator("#log li").count() == 0 and page.is_visible("#empty")
    say(page, "One day")
    assert page.locator("#list li").count() == 2
    page.hover("#list li:first-child")
    page.click("#list li:first-child .drop")
    assert page.locator("#list li").count() == 1


def test_stop_and_regenerate(page, server):
    settings(page, max_tokens="90000", temperature="1")
    # An answer of this model ends before anyone could stop it: ends are ignored here alone.
    page.route("**/v1/chat/completions", lambda route: route.continue_(
        post_data=route.request.post_data.replace('{"model"', '{"ignore_eos":true,"model"')))
    send(page, "One day")
    until(page, lambda: len(page.inner_text(f"{ANSWER} .text")) > 20)
    assert page.get_attribute(ANSWER, "aria-busy") == "true" and page.is_hidden("#send")
    page.click("#stop")
    page.wait_for_selector("#again")
    assert "stopped" in page.inner_text(f"{ANSWER} .note") and page.is_visible("#send")
    until(page, lambda: not any(device.running for device in server.engine.devices))
    page.unroute("**/v1/chat/completions")
    settings(page, max_tokens="10")
    first = page.inner_text(f"{ANSWER} .text")
    page.click("#again")
    until(page, lambda: page.locator("#again").count() and page.inner_text(f"{ANSWER} .text") != first)
    assert page.locator("#log li").count() == 2


def test_texts_are_never_markup(page):
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        content_type="text/event-stream", body='data: {"choices":[{"index":0,"delta":{"content":'
        '"<img src=x onerror=alert(1)><script>alert(2)</script>"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'))
    assert say(page, "<b>bold</b><script>alert(3)</script>").startswith("<img src=x")
    assert page.locator("#log img, #log script, #log b, #list b").count() == 0
    assert page.inner_text("#log .user .text").startswith("<b>bold")
    assert page.evaluate("try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (error) { error.name }") == \
        "TypeError"
    page.wrong.clear()  # that was one


def test_errors_are_said(page, server):
    assert page.is_hidden("#trouble")
    settings(page, temperature="7")
    send(page, "One")
    page.wait_for_selector("#trouble")
    assert "temperature" in page.inner_text("#trouble") and page.is_visible("#send")
    page.wrong.clear()  # the browser's own word about status 400
    settings(page, temperature="1")
    page.click("#retry")
    page.wait_for_selector("#again")
    assert page.is_hidden("#trouble") and page.locator("#log li").count() == 2


START = 'data: {"choices":[{"index":0,"delta":{"content":"One day"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("status, body, words", [
    (429, '{"error":{"message":"256 wait already"}}', "256 wait already"),
    (503, "<html>", "status 503"),
    (200, START, "the answer broke off"),
    (200, START + 'data: {"error":{"message":"no device answers"}}\n\n', "no device answers"),
], ids=["full", "no JSON", "broken", "error"])
def test_what_fails_can_be_tried_again(page, status, body, words):
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=status, content_type="text/event-stream" if status == 200 else "application/json", body=body))
    send(page, "One")
    page.wait_for_selector("#trouble")
    assert words in page.inner_text("#problem") and page.is_visible("#send")
    assert page.locator(".note").all_inner_texts() == (["broken off"] if status == 200 else [])
    page.unroute("**/v1/chat/completions")
    page.click("#retry")
    until(page, lambda: page.locator("#again").count() and "tokens/s" in page.inner_text(f"{ANSWER} .note"))
    assert page.is_hidden("#trouble") and page.locator("#log li").count() == 2
    page.wrong.clear()  # the browser's own word about the status


def test_two_tabs_keep_what_each_has_said(page, server):
    say(page, "First tab")
    other = page.context.new_page()
    other.goto(server.url)
    other.wait_for_selector("#devices li.alive")
    say(other, "Second tab")
    until(page, lambda: page.locator("#list li").count() == 2)
    say(page, "More of the first")
    for tab in (page, other):
        until(tab, lambda: tab.locator("#list li").count() == 2)  # noqa: B023
        tab.reload()
        assert sorted(tab.locator("#list .pick").all_inner_texts()) == ["First tab", "Second tab"]


@pytest.mark.parametrize("script, lasting", [
    ("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }", False),
    ("Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})",
     False),
    ("", True)], ids=["full", "forbidden", "there"])
def test_without_room_in_the_browser(page, server, script, lasting):
    page.add_init_script(script)
    page.reload()
    page.wait_for_selector("#devices li.alive")
    say(page, "One day")
    page.click("#new")
    say(page, "Two days")
    assert page.locator("#list li").count() == 2 and page.is_hidden("#keeping") == lasting
    page.click("#list li:last-child .pick")
    assert page.inner_text("#title") == "One day" and page.locator("#again").count() == 1


def test_a_conversation_that_is_left_in_the_midst_of_an_answer(page, server):
    say(page, "One day")
    settings(page, max_tokens="90000")
    page.route("**/v1/chat/completions", lambda route: route.continue_(
        post_data=route.request.post_data.replace('{"model"', '{"ignore_eos":true,"model"')))
    page.click("#new")
    send(page, "Endless")
    until(page, lambda: len(page.inner_text(f"{ANSWER} .text")) > 20)
    page.click("#list li:last-child .pick")
    assert page.inner_text("#title") == "One day"
    assert page.locator("#again").count() == 1 and page.is_visible("#send")
    until(page, lambda: not any(device.running for device in server.engine.devices))
    page.click("#list li:first-child .pick")
    assert page.inner_text("#title") == "Endless" and "stopped" in page.inner_text(f"{ANSWER} .note")


def test_keyboard_alone(page):
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("day")
    assert page.input_value("#prompt") == "One\nday"
    page.keyboard.press("Enter")
    page.wait_for_selector("#again")
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert page.inner_text("#say").startswith("The model says: ")
    seen = set()
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"again", "gear", "new", "pick", "drop", "skip"} <= seen
    page.focus(".skip")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "prompt"


def test_every_control_has_a_name_and_the_page_its_parts(page):
    page.click("#gear")
    nameless = page.evaluate("""[...document.querySelectorAll("button, input, select, textarea")].filter(one =>
        !one.textContent.trim() && !one.getAttribute("aria-label") && !one.labels?.length)
        .map(one => one.outerHTML)""")
    assert not nameless
    assert page.locator("main").count() == page.locator("nav").count() == page.locator("h1").count() == 1
    assert page.get_attribute("html", "lang") == "en" and page.locator("[role=status]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_the_colours(page, scheme):
    page.emulate_media(color_scheme=scheme)
    say(page, "One day")
    found = page.evaluate("""selectors => selectors.map(one => {
        const element = document.querySelector(one);
        let back = element, colour;
        do { colour = getComputedStyle(back).backgroundColor; back = back.parentElement; }
        while (colour === "rgba(0, 0, 0, 0)" && back);
        const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return .2126*r + .7152*g + .0722*b; };
        const [a, b] = [light(getComputedStyle(element).color), light(colour)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    })""", ["#title", ".user .text", ".assistant .text", ".who", ".note", "#again", "#send", ".pick", "#speed"])
    assert min(found) >= 4.5, found


def test_narrow(page):
    page.set_viewport_size({"width": 390, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.is_visible("#new")
    page.click("#menu")
    page.wait_for_selector("#new")
    page.keyboard.press("Escape")
    assert not page.is_visible("#new") and page.get_attribute("#menu", "aria-expanded") == "false"
    say(page, "One day")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_key_is_asked_for(chromium):
    with served(ROOT / "models" / "tiny" / "tiny.sterna", "cpu", Settings(api_key="secret")) as server:
        page = chromium.new_page()
        page.goto(server.url)
        until(page, lambda: "wants a key" in page.inner_text("#waiting"))
        settings(page, key="secret")
        page.wait_for_selector("#devices li.alive")
        assert say(page, "One day")
        page.close()
