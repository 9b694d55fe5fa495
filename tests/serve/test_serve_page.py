"""The page of `ens serve` in a real browser, with a real server behind it."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from pages import CONTRASTS, SIZES
from serve_model import COLOURS, Running, picture

NAMES = ("dog", "giraffe", "<b>guitar</b>", "말", "a house with quite a long name", "person", "elephant")


def votes(images):
    """Two of three members agree."""
    one = np.array([0.9, 0.04, 0.03, 0.02, 0.006, 0.0039, 0.0001], np.float32)
    other = np.array([0.2, 0.7, 0.04, 0.03, 0.02, 0.006, 0.004], np.float32)
    of_members = np.stack([np.tile(row, (len(images), 1)) for row in (one, other, one)])
    return of_members.mean(axis=0), of_members


MODEL = replace(COLOURS, classes=NAMES, members=("convnext", "swin", "tf_mobilenetv3_large_minimal_100"), predict=votes)


@pytest.fixture(scope="module")
def server():
    running = Running(MODEL, max_images=3)
    yield running
    running.stop()


def opened(browser, server, size="desk", scheme="light"):
    """The page, and what went wrong on it or was asked of another server."""
    page = browser.new_page(viewport=dict(zip(("width", "height"), SIZES[size], strict=True)), color_scheme=scheme)
    wrong = []
    here = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/", "data:")
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(here) else None)
    page.goto(f"http://127.0.0.1:{server.port}/", wait_until="load")
    return page, wrong


def choose(page, *files):
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files])


def test_a_picture_is_answered_with_the_votes_of_the_members(browser, server):
    page, wrong = opened(browser, server)
    choose(page, ("horse.png", picture("orange", size=(300, 200))))
    page.wait_for_selector("article")
    assert page.inner_text("article h2") == "dog" and "66.7 %" in page.inner_text(".sure")
    text = page.inner_text("article")
    assert "2 of 3 members vote for dog" in text and "votes for giraffe" in text and "<b>guitar</b>" in text
    assert page.locator("article tr").count() == len(NAMES) + 3 and "말" in text
    assert page.locator("article tr:visible").count() == 5 + 3
    page.click("summary")
    assert page.locator("article tr:visible").count() == len(NAMES) + 3
    assert page.inner_text("#state") == "horse.png: dog"
    assert page.evaluate("() => document.querySelector('article img').naturalWidth") == 300
    assert wrong == []
    page.close()


def test_pictures_can_be_dropped_and_pasted(browser, server):
    page, wrong = opened(browser, server)
    give = """([kind, data]) => {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)), files = new DataTransfer();
      files.items.add(new File([bytes], kind + '.png', { type: 'image/png' }));
      document.querySelector('main').dispatchEvent(kind === 'drop'
        ? new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true })
        : new ClipboardEvent('paste', { clipboardData: files, bubbles: true }));
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, base64.b64encode(picture("red")).decode()])
        page.wait_for_function(f"() => document.querySelector('#state').textContent === '{kind}.png: dog'")
    assert wrong == []
    page.close()


def test_an_unreadable_file_stands_beside_the_others(browser, server):
    page, _ = opened(browser, server)
    choose(page, ("a.png", picture("red")), ("notes.png", b"not a picture"))
    page.wait_for_selector("article .error")
    assert page.locator("article h2").all_inner_texts() == ["dog", "No answer"]
    assert "not a readable image" in page.inner_text("article .error")
    assert page.inner_text("#state") == "1 of 2 predicted by colours"
    page.close()


def test_what_the_server_refuses_is_said(browser, server):
    page, _ = opened(browser, server)
    choose(page, *[(f"{number}.png", picture("red")) for number in range(4)])
    page.wait_for_selector("#state.wrong")
    assert "more than the 3 images" in page.inner_text("#state")
    page.close()


def test_a_token_is_asked_for_and_the_pictures_are_sent_again(browser):
    guarded = Running(MODEL, token="s3cret")
    page, _ = opened(browser, guarded)
    assert not page.is_visible("#secret")
    choose(page, ("a.png", picture("red")))
    page.wait_for_selector("#secret")
    page.keyboard.type("wrong")  # it has the focus
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#state').textContent === 'This server needs a token.'")
    page.fill("#secret", "s3cret")
    page.keyboard.press("Enter")
    page.wait_for_selector("article")
    assert page.inner_text("article h2") == "dog" and not page.is_visible("#secret")
    page.close()
    guarded.stop()


def test_the_keyboard_reaches_the_choice(browser, server):
    page, _ = opened(browser, server)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "files"
    assert page.evaluate("() => getComputedStyle(document.querySelector('#drop')).outlineStyle") == "solid"
    assert page.evaluate("() => document.activeElement.labels[0].innerText").startswith("Choose pictures")
    page.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_leaves_the_screen_and_text_stands_out(browser, server, size, scheme):
    page, _ = opened(browser, server, size, scheme)
    choose(page, ("a-name-" + "long" * 20 + ".png", picture("red", size=(900, 300))), ("n.png", b"not a picture"))
    page.wait_for_selector("article .error")
    page.click("summary")
    assert page.evaluate("() => document.scrollingElement.scrollWidth") <= SIZES[size][0]
    assert page.evaluate(CONTRASTS) == []
    page.close()
