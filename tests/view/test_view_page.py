"""The page of `ens view` in a real browser, with the run's real server behind it."""

import shutil

import pytest
from pages import CONTRASTS, SIZES
from test_view_server import served

from ensemble.run import Run


@pytest.fixture(scope="module")
def run(noise_run, tmp_path_factory):
    """A run whose second member has one fold to go."""
    run = Run(shutil.copytree(noise_run, tmp_path_factory.mktemp("view") / "art & <b>co"))
    run.member("vit").fold(1).done_json.unlink()
    lines = "".join(
        f'{{"epoch": {n}, "loss": {1 / n}, "lr": 0.001, "images_per_second": 9.0, "held_out_accuracy": 0.{n}}}\n'
        for n in (1, 2, 3)
    )
    run.member("vit").fold(1).write_log(lines)
    said = ("begins: <i>ens</i>", f"saved {run.path}/blends/mean.json")
    run.ens_log.write_text("".join(f"2026-01-01T00:00:0{n}Z 7 {line}\n" for n, line in enumerate(said)))
    return run


@pytest.fixture
def port(run):
    with served(run.path) as number:
        yield number


def opened(browser, port, size="desk", scheme="light"):
    """The page, and what went wrong on it or was asked of another server."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[size], strict=True)), color_scheme=scheme)
    wrong, here = [], (f"http://127.0.0.1:{port}/", "data:")
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(here) else None)
    page.goto(f"http://127.0.0.1:{port}/", wait_until="load")
    page.wait_for_selector("#groups img")
    return page, wrong


def test_it_shows_the_run_and_follows_it(browser, run, port):
    page, wrong = opened(browser, port)
    assert page.inner_text("h1") == "art & <b>co"
    assert page.inner_text("#status") == "3 of 4 folds done · nobody trains it now"
    assert page.locator("#lines li span").all_inner_texts() == [
        "saved art & <b>co/blends/mean.json",
        "begins: <i>ens</i>",
    ]
    assert page.locator("#folds tbody tr").count() == 2 and "stopped after 3/" in page.inner_text("#folds")
    assert page.locator(".live").count() == 2 and page.locator(".live path.mean, .live circle.mean").count() > 0
    assert page.evaluate("() => [...document.images].every((image) => image.complete && image.naturalWidth > 8)")
    run.member("vit").fold(1).finish(seconds=9.0)
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('4 of 4 folds done')")
    run.member("vit").fold(1).done_json.unlink()
    assert wrong == []
    page.close()


def test_a_chart_by_the_keyboard(browser, port):
    page, _ = opened(browser, port)
    chart = page.locator(".live svg").nth(1)
    chart.focus()
    for key, epoch in (("Home", "1"), ("ArrowRight", "2"), ("End", "3"), ("ArrowRight", "3"), ("ArrowLeft", "2")):
        page.keyboard.press(key)
        assert chart.get_attribute("aria-valuenow") == epoch
    assert "training loss 0.500, accuracy 20.0 %, learning rate 1.0e-3" in page.locator(".readout").nth(1).inner_text()
    assert chart.locator(".cursor").count() == 1
    page.close()


def test_a_server_that_is_gone_is_said(browser, run):
    with served(run.path) as port:
        page, _ = opened(browser, port)
    page.wait_for_selector("#status.lost")
    assert "was it closed?" in page.inner_text("#status")
    page.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_leaves_the_screen_and_text_stands_out(browser, port, size, scheme):
    page, wrong = opened(browser, port, size, scheme)
    assert page.evaluate("() => document.scrollingElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(CONTRASTS) == [] and wrong == []
    page.close()
