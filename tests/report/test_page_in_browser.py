"""The page of `rlcsd show` in a real Chromium: hover, click, filter, keys, and text that tries to become code.

Skipped where Chromium, its driver or selenium are missing; `make test-page` installs them where it can.
"""

import random

import pytest

from rlcsd.report.page import write_page

from .browser import chromium, found, prefer, resize
from .folders import group, lines, rollout, write_config, write_run

pytestmark = pytest.mark.skipif(found() is None, reason="needs Chromium, its driver and selenium: make test-page")
HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=1'><b>bold</b>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_page(write_run(folder / "run", steps=3, groups=2, size=4, tokens=40), folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(browser, page):
    return reload(browser, page)


def reload(browser, page, fragment=""):
    browser.get("about:blank")
    browser.get(page.as_uri() + fragment)
    assert browser.execute_script("return document.documentElement.dataset.ready")
    return browser


def one(browser, selector):
    return browser.find_element("css selector", selector)


def every(browser, selector):
    return browser.find_elements("css selector", selector)


def press(browser, *keys):
    for key in keys:
        browser.execute_script(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))", key
        )


def tip(browser):
    rows = every(browser, "#tip tr")
    return dict(row.text.rsplit(" ", 1) for row in rows)


def test_hovering_over_a_token_shows_all_its_values(opened):
    from selenium.webdriver import ActionChains

    assert not one(opened, "#tip").is_displayed()
    ActionChains(opened).move_to_element(one(opened, "#response [data-i='3']")).perform()
    assert one(opened, "#tip").is_displayed()
    assert set(tip(opened)) >= {
        "Contrast",
        "Gap, correct hint",
        "Gap, wrong hints",
        "Credit",
        "Final advantage",
        "Entropy",
    }
    assert "token 4 of 40" in one(opened, "#tip").text
    shown = opened.execute_script(
        "const c = column(rollout(), 'contrast'); return written(signalOf('contrast'), c[3]);"
    )
    assert tip(opened)["Contrast"] == shown


def test_clicks_choose_what_is_shown(opened):
    assert len(every(opened, "#response > span")) == 40
    every(opened, ".rollout")[2].click()
    assert "Rollout 3 is wrong" in one(opened, "#verdict-line").text
    before = opened.execute_script(
        "return [...document.querySelectorAll('#response > span')].map((s) => s.style.cssText)"
    )
    next(b for b in every(opened, "#shades button") if b.text == "Entropy").click()
    assert (
        opened.execute_script("return [...document.querySelectorAll('#response > span')].map((s) => s.style.cssText)")
        != before
    )
    assert one(opened, "#about").text.startswith("Entropy")
    every(opened, "#problems button")[1].click()
    assert every(opened, "#problems button")[1].get_attribute("aria-pressed") == "true"
    assert "Go to rollout 2" in one(opened, "#hints").text
    next(b for b in every(opened, "#hints button") if b.text == "Go to rollout 2").click()
    assert "Rollout 2" in one(opened, "#verdict-line").text
    every(opened, "#everywhere button")[0].click()
    assert one(opened, "#response .now") and one(opened, "#tip").is_displayed()


def test_the_filter_leaves_what_matches(opened):
    from selenium.webdriver.support.ui import Select

    Select(one(opened, "#verdict")).select_by_value("wrong")
    assert "is wrong" in one(opened, "#verdict-line").text
    assert one(opened, "#matches").text == "12 of 24"
    assert len(every(opened, ".rollout.faded")) == 2
    for _ in range(12):
        press(opened, "j")
        assert "is wrong" in one(opened, "#verdict-line").text
    assert "step=3&problem=2&rollout=4" in opened.current_url
    one(opened, "#search").send_keys("no such words")
    assert one(opened, "#matches").text == "0 of 24"


def test_keys(opened):
    press(opened, "ArrowRight", "ArrowRight")
    assert one(opened, "#response .now").get_attribute("data-i") == "1"
    press(opened, "l")
    largest = opened.execute_script(
        "const c = [...column(rollout(), 'contrast')].map(Math.abs); return c.indexOf(Math.max(...c));"
    )
    press(opened, "Escape", "l")
    assert one(opened, "#response .now").get_attribute("data-i") == str(largest)
    press(opened, "n")
    assert "problem=2" in opened.current_url
    press(opened, "]")
    assert one(opened, "#step-label").text == "Step 2"
    assert [one(opened, "#step").get_attribute(name) for name in ("value", "aria-valuetext")] == ["2", "step 2"]
    press(opened, "2")
    assert one(opened, "#shades [aria-checked='true']").text == "Gap, correct hint"
    press(opened, "?")
    assert one(opened, "#keys").is_displayed()


def test_an_address_leads_to_a_token(browser, page):
    reload(browser, page, "#step=3&problem=2&rollout=4&shade=entropy&token=7")
    assert one(browser, "#step-label").text == "Step 3"
    assert "Rollout 4" in one(browser, "#verdict-line").text
    assert one(browser, "#response .now").get_attribute("data-i") == "6"
    assert one(browser, "#shades [aria-checked='true']").text == "Entropy"


def test_text_that_tries_to_become_code_stays_text(browser, tmp_path):
    record = rollout(random.Random(0), 1, True, text=HOSTILE, start=[0], end=[len(HOSTILE)], boxed=HOSTILE)
    for hint in (record["hints"]["correct"], *record["hints"]["wrong"]):
        hint.update(text=HOSTILE, answer=HOSTILE)
    run = write_config(tmp_path, task={"name": HOSTILE})
    lines(run / "rollouts.jsonl", [group(1, 0, [record], question=HOSTILE, answer=HOSTILE, kind=HOSTILE)])
    write_page(run, tmp_path / "page.html")
    reload(browser, tmp_path / "page.html")
    assert browser.execute_script("return window.hit") is None
    assert not every(browser, "#response img, #hints img, #rollouts img, h1 b, #hints b, #question b")
    assert one(browser, "#response").text == HOSTILE
    assert HOSTILE in one(browser, "h1").text and HOSTILE in one(browser, "#question").text
    assert len(every(browser, "script")) == 2


@pytest.mark.parametrize("method", ["grpo", "rlcsd"])
def test_it_fits_every_window_in_both_schemes_without_complaints(browser, tmp_path, method):
    run = write_run(tmp_path / "run", method=method)
    text = (run / "rollouts.jsonl").read_text().replace('"boxed": "Alice"', f'"boxed": "{"a long answer " * 20}"')
    (run / "rollouts.jsonl").write_text(text)
    write_page(run, tmp_path / "page.html")
    for scheme in ("light", "dark"):
        prefer(browser, scheme)
        for width in (390, 900, 1440):
            resize(browser, width, 900)
            reload(browser, tmp_path / "page.html")
            assert browser.execute_script("return document.documentElement.dataset.theme") == scheme
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            edges = browser.execute_script(
                "return ['nav', '.rollout'].map((s) => document.querySelector(s).getBoundingClientRect().right)"
            )
            assert edges[1] < edges[0]
    assert browser.get_log("browser") == []
    resize(browser, 1440, 1000)


def test_what_is_not_recorded_is_explained(browser, tmp_path):
    some, none = rollout(random.Random(0), 5, True), rollout(random.Random(1), 5, False, updated=False)
    for name in ("teacher", "wrong", "contrast", "hints", "selected", "final_advantage"):
        del none[name]
    some["hints"]["correct"] |= {"kind": "feedback", "answer": ""}
    lines(write_config(tmp_path) / "rollouts.jsonl", [group(1, 0, [none, some])])
    write_page(tmp_path, tmp_path / "page.html")
    reload(browser, tmp_path / "page.html")
    assert "Rollout 2" in one(browser, "#verdict-line").text  # the first with the signal that is shaded
    assert "Verifier's feedback" in every(browser, "#hints details")[0].text
    assert "Final answer" not in every(browser, "#hints details")[0].text
    press(browser, "k")
    assert "not in the update" in one(browser, "#about").text
    assert "No hint is recorded" in one(browser, "#hints").text
