"""The report in a real browser: nothing fails, nothing is fetched, all is seen, in both themes and on a phone."""

from pathlib import Path

import numpy as np
import pytest
from pages import CONTRASTS, SIZES
from PIL import Image
from sklearn.datasets import load_digits

from ensemble.events import SILENT
from ensemble.report import write_report
from ensemble.run import Run

ART = Path(__file__).parents[3] / "shared" / "data" / "art-painting" / "train"


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory, blended_run):
    """Eight by eight digits under Korean names, and a name that would break a page that does not escape it."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    names = ["영", "하나 & 일", "<b>둘</b>"]
    for row in np.flatnonzero(digits.target < 3)[:90]:
        path = folder / "train" / names[digits.target[row]].replace("/", "∕") / f"{row:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(digits.images[row] * (255 / 16)).astype(np.uint8)).save(path)
    return write_report(Run(blended_run(folder)), None, SILENT)


@pytest.fixture(scope="module")
def art_page(tmp_path_factory, blended_run):
    if not ART.is_dir():
        pytest.skip("the art paintings are not here")
    folder = tmp_path_factory.mktemp("art")
    for name in sorted(path.name for path in ART.iterdir()):
        (folder / "train" / name).mkdir(parents=True)
        for path in sorted((ART / name).glob("*.jpg"))[:12]:
            (folder / "train" / name / path.name).symlink_to(path.resolve())
    return write_report(Run(blended_run(folder)), None, SILENT)


@pytest.fixture(params=["digits_page", "art_page"])
def report(request):
    return request.getfixturevalue(request.param)


def opened(browser, path, size="desk", scheme="light"):
    """The page, and what went wrong on it or was asked of a network while it loaded."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[size], strict=True)), color_scheme=scheme)
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url[:80]))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(path.as_uri(), wait_until="load")
    return page, wrong


def test_it_loads_without_an_error_and_asks_no_network(browser, report):
    page, wrong = opened(browser, report)
    page.evaluate(
        "() => Promise.all([...document.images].map(image => { image.loading = 'eager'; return image.decode() }))"
    )
    assert wrong == []
    page.close()


def test_all_images_decode(browser, report):
    page, _ = opened(browser, report)
    sides = page.evaluate(
        "() => Promise.all([...document.images].map(async image => { image.loading = 'eager'; await image.decode();"
        " return [image.naturalWidth, image.naturalHeight] }))"
    )
    assert len(sides) >= 12 and min(map(min, sides)) >= 8
    page.close()


def test_every_section_has_a_heading_that_the_contents_name_and_something_below_it(browser, report):
    page, _ = opened(browser, report)
    linked = page.eval_on_selector_all("nav a[href^='#']", "all => all.map(a => a.getAttribute('href').slice(1))")
    sections = page.eval_on_selector_all(
        "main section[id]",
        "all => all.map(s => [s.id, s.querySelector('h2')?.innerText ?? '', s.innerText.length, s.offsetHeight])",
    )
    assert [section[0] for section in sections] == linked and len(linked) >= 8
    for name, heading, letters, height in sections:
        assert heading.strip() and letters > len(heading) + 20 and height > 60, name
    page.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_leaves_the_screen_and_text_stands_out(browser, report, size, scheme):
    page, _ = opened(browser, report, size, scheme)
    assert page.evaluate("() => document.scrollingElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(CONTRASTS) == []
    page.close()


def test_the_button_turns_the_theme(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.click("button[data-theme-toggle]")
    dark = page.evaluate(background)
    assert light != dark
    page.click("button[data-theme-toggle]")
    assert page.evaluate(background) == light and wrong == []
    page.close()


def test_names_are_shown_as_they_are(browser, digits_page):
    page, _ = opened(browser, digits_page)
    text = page.inner_text("main")
    assert "영" in text and "하나 & 일" in text and "<b>둘" in text
    page.close()
