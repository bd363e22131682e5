"""The Export menu: keys, what it offers, what it asks of the server, and what it says when that fails."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Route, expect

from tests.ui.player.traces import Maker, race

FORMATS = ["json", "html", "gif", "mp4", "csv-steps", "csv-tokens", "csv-cycles", "csv-metrics", "map-png", "map-svg"]


def offered(stage: Any) -> list[str]:
    return stage.page.locator(".ndp-export-item:visible").evaluate_all("l => l.map((n) => n.dataset.format)")


def test_keys_open_walk_and_close_the_menu(stage: Any):
    stage.load([Maker(seed=2).linear_spec()])
    button, menu, press = stage.page.get_by_role("button", name="Export"), stage.page.get_by_role("menu"), stage.page.keyboard.press
    button.focus()
    press("ArrowDown")
    expect(menu).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    focused = "document.activeElement.dataset.format"
    assert stage.page.evaluate(focused) == "json"
    for key, lands in (("ArrowDown", "html"), ("ArrowUp", "json"), ("ArrowUp", "map-svg"), ("ArrowDown", "json"), ("End", "map-svg"), ("Home", "json"), ("g", "gif"), ("m", "mp4")):
        stage.page.wait_for_function("() => document.querySelectorAll('.ndp-export-item:not([hidden])').length === 10")
        press(key)
        assert stage.page.evaluate(focused) == lands, key
    step = stage.get("p.step")
    press("Escape")
    expect(menu).to_be_hidden()
    expect(button).to_be_focused()
    assert stage.get("p.step") == step, "the menu's keys must not move the player"
    press("Enter")
    expect(menu).to_be_visible()
    press("Tab")
    expect(menu).to_be_hidden()
    button.click()
    stage.page.mouse.click(5, 5)
    expect(menu).to_be_hidden()


def test_what_is_offered_depends_on_the_run(stage: Any):
    stage.load([Maker(seed=2).diffusion()])
    stage.page.get_by_role("button", name="Export").click()
    expect(stage.page.locator("[data-format=map-png]")).to_be_visible()
    assert offered(stage) == [name for name in FORMATS if name != "csv-cycles"]
    stage.page.keyboard.press("Escape")
    stage.load(race())
    stage.page.get_by_role("button", name="Export").click()
    assert offered(stage) == FORMATS


def test_a_served_format_is_asked_for_and_saved_under_the_servers_name(open_stage: Any):
    stage = open_stage(color_scheme="dark")
    stage.load([Maker(seed=2).diffusion()])
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(body=b"GIF89a", headers={"content-type": "image/gif", "content-disposition": 'attachment; filename="nemodiff-trace-1.gif"'})

    stage.page.route("**/nemodiff/traces/**", answer)
    stage.page.get_by_role("button", name="Export").click()
    with stage.page.expect_download() as download:
        stage.page.locator("[data-format=gif]").click()
    assert download.value.suggested_filename == "nemodiff-trace-1.gif"
    (url,) = asked
    assert url.endswith(f"/nemodiff/traces/{stage.get('p.run')}?format=gif&theme=dark")
    expect(stage.page.get_by_role("button", name="Export")).to_have_attribute("aria-busy", "false")
    expect(stage.page.locator(".ndp-fault")).to_be_hidden()


def test_what_the_server_refuses_is_said_and_forgotten_with_the_next_run(stage: Any):
    stage.load([Maker(seed=2).diffusion()])
    waiting: list[Route] = []
    stage.page.route("**/nemodiff/traces/**", lambda route: waiting.append(route))
    button, fault = stage.page.get_by_role("button", name="Export"), stage.page.locator(".ndp-fault")
    answers = [
        ({"status": 404, "content_type": "text/plain; charset=utf-8", "body": "There is nothing to save yet."}, "There is nothing to save yet."),
        ({"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"}, "The server could not export the run (502); try another format."),
        (None, "The server does not answer; check the connection and export again."),
    ]
    for answer, says in answers:
        button.click()
        stage.page.locator("[data-format=mp4]").click()
        busy = stage.page.locator(".ndp-export-open")
        expect(busy).to_have_attribute("aria-busy", "true")
        expect(busy).to_have_text("Exporting…")
        stage.page.wait_for_timeout(50)
        route = waiting.pop()
        route.fulfill(**answer) if answer else route.abort()
        expect(fault).to_have_text(says)
        expect(button).to_be_focused()
    stage.load([Maker("Another.", seed=3).ar()])
    expect(fault).to_be_hidden()


def test_the_page_can_save_the_run_and_hears_why_not(stage: Any):
    save = "() => window.player.save()"
    assert stage.page.evaluate(save) == "There is nothing to save yet: run a prompt first."
    stage.load([Maker(seed=2).diffusion()])
    stage.page.route("**/nemodiff/traces/**", lambda route: route.fulfill(status=404, content_type="text/plain", body="Vote first."))
    assert stage.page.evaluate(save) == "Vote first."
    expect(stage.page.locator(".ndp-fault")).to_be_hidden()
    stage.page.unroute("**/nemodiff/traces/**")
    stage.page.route("**/nemodiff/traces/**", lambda route: route.fulfill(body=b"{}", headers={"content-disposition": 'attachment; filename="nemodiff-trace-1.json.gz"'}))
    with stage.page.expect_download() as download:
        assert stage.page.evaluate(save) == ""
    assert download.value.suggested_filename == "nemodiff-trace-1.json.gz"


def test_there_is_room_for_it_on_a_phone(open_stage: Any):
    stage = open_stage(width=390, height=800)
    stage.load([Maker(seed=2).linear_spec()])
    stage.page.get_by_role("button", name="Export").click()
    expect(stage.page.locator("[data-format=map-svg]")).to_be_visible()
    box = stage.page.locator(".ndp-export").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] >= 0
    tops = stage.page.eval_on_selector_all(".ndp-bar > *:not(.ndp-step):not([hidden])", "l => l.map((n) => n.getBoundingClientRect().bottom)")
    assert max(tops) - min(tops) < 24, "the bar must stay one line"
    assert stage.page.evaluate("document.documentElement.scrollWidth") <= 390
