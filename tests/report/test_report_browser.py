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


@pytest.mark.parametrize(("size", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_axe_finds_nothing_that_shuts_anyone_out(browser, report, size, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page, _ = opened(browser, report, size, scheme)
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []
    page.close()


def test_a_picture_is_enlarged_and_the_arrow_keys_go_on(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    page.focus("[data-gallery] [data-zoom] >> nth=0")
    page.keyboard.press("Enter")
    big = page.locator("dialog.zoom img")
    first = big.get_attribute("src")
    assert big.bounding_box()["width"] > 300 and page.inner_text("dialog.zoom .caption").strip()
    page.keyboard.press("ArrowRight")
    assert big.get_attribute("src") != first
    page.keyboard.press("ArrowLeft")
    assert big.get_attribute("src") == first
    page.keyboard.press("Escape")
    assert page.locator("dialog.zoom").is_hidden() and wrong == []
    assert page.evaluate("document.activeElement.matches('[data-gallery] [data-zoom]')")
    page.close()


def test_cells_of_the_matrix_show_their_images(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    for cell in page.locator("td[data-cell]").all():
        cell.locator("button").press("Enter")
        label, predicted = (int(number) for number in cell.get_attribute("data-cell").split())
        names = [name.inner_text() for name in page.locator(".confusion tbody th").all()]
        heading = page.inner_text("[data-of-cell] h4")
        assert heading.startswith(names[label]) and cell.locator("button").get_attribute("aria-pressed") == "true"
        assert label == predicted or f"predicted {names[predicted]}: " in heading
        count = int(cell.locator(".counts").inner_text())
        shown = page.locator("[data-of-cell] .card")
        assert shown.count() == min(count, 6) and page.locator("[data-of-cell] img").count() == shown.count()
        assert all(name.startswith(names[label].replace("/", "∕")) for name in shown.locator(".id").all_inner_texts())
    assert wrong == []
    page.close()


def test_the_gallery_is_filtered_and_sorted(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    cards = "[...document.querySelectorAll('[data-gallery] .card')].filter(c => c.offsetParent)"
    page.click("label[for='gallery-unsure']")
    every = page.evaluate(f"{cards}.map(c => c.dataset.unsure)")
    assert every == [str(rank) for rank in range(24)]
    page.select_option("[data-sort]", "p")
    sure = page.evaluate(f"{cards}.map(c => +c.dataset.p)")
    assert len(sure) == 24 and sure == sorted(sure)
    page.select_option("select[data-class]", "1")
    kept = page.evaluate(f"{cards}.map(c => [c.dataset.label, c.dataset.predicted])")
    assert 0 < len(kept) < 24 and all("1" in pair for pair in kept)
    assert page.inner_text("[data-shown]") == f"{len(kept)} images are shown" and wrong == []
    page.close()


def test_values_are_read_off_a_learning_curve(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    plot = page.locator(".plot[data-member]").first
    plot.focus()
    read = plot.locator(".read")
    last = read.locator("caption").inner_text()
    assert last.startswith("epoch ") and "training loss" in read.inner_text() and "learning rate" in read.inner_text()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.4 * box["height"])
    assert read.locator("caption").inner_text() == "epoch 1" and wrong == []
    page.close()


def test_a_class_marks_its_curves(browser, digits_page):
    page, wrong = opened(browser, digits_page)
    row = page.locator("tr[data-class]").last
    row.locator("button").press("Enter")
    marked = page.eval_on_selector_all("path.on", "all => all.map(path => path.dataset.class)")
    assert marked == [row.get_attribute("data-class")] * 2 and wrong == []
    page.close()


def test_curves_are_saved_as_csv(browser, digits_page):
    page, _ = opened(browser, digits_page)
    for link, head in (("[data-curves]", "member,fold,epoch"), ("#class_curves a[download]", "class,threshold")):
        with page.expect_download() as saved:
            page.click(link)
        assert saved.value.suggested_filename.endswith("curves.csv")
        assert Path(saved.value.path()).read_text(encoding="utf-8").startswith(head)
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
