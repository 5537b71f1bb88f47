"""The interface in a real Chromium, as a person uses it: every way of use, in both languages, light and dark, wide and narrow."""

import io
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from sklearn.datasets import load_sample_image

from bhi_utils.app import page_html
from bhi_utils.core.messages import probability, text, threshold_said

pytestmark = pytest.mark.browser

# milliseconds, for machines that do other things as well
expect.set_options(timeout=60_000)
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}


@contextmanager
def opened(browser: Browser, url: str, *, language: str = "en", theme: str = "light", size: str = "wide") -> Iterator[Page]:
    """The page; fails at the end on any console error, page error, bad answer, or request to another host."""
    locale = {"en": "en-GB", "es": "es-AR"}[language]
    context = browser.new_context(viewport=SIZES[size], locale=locale, color_scheme=theme, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith((url, "data:", "blob:")) else troubles.append(sent.url))
    page.on("response", lambda got: troubles.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    page.goto(url)
    expect(page.locator("#examples img")).to_have_count(6)
    yield page
    context.close()
    assert not troubles


def tab(page: Page, name: str, language: str = "en") -> None:
    page.get_by_role("tab", name=text(f"tab_{name}", language), exact=True).click()


def give(page: Page, box: str, *paths) -> None:
    page.locator(f"#{box} input[type=file]").set_input_files([str(path) for path in paths])


def pictured(page: Page, *name: str) -> None:
    """A screenshot to look at, where ``BHI_SCREENSHOTS`` names a folder; ``figures/07_app.png`` is one."""
    if folder := os.environ.get("BHI_SCREENSHOTS"):
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{folder}/{'-'.join(name)}.png", full_page=True)


#: Both languages quickly; the other looks of the page take as long again.
WALKS = [
    ("en", "light", "wide"),
    ("es", "light", "narrow"),
    pytest.param("es", "dark", "wide", marks=pytest.mark.slow),
    pytest.param("en", "dark", "narrow", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("language", "theme", "size"), WALKS)
def test_every_way_of_use(chromium, url, predictor, patches, patch_file, region_file, tmp_path, language, theme, size):
    row = predictor.predict(patches[0][None]).iloc[0]
    with opened(chromium, url, language=language, theme=theme, size=size) as page:
        assert page.evaluate("document.documentElement.lang") == language
        assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
        expect(page.locator("h1")).to_have_text(text("title", language))
        give(page, "patch", patch_file)
        expect(page.locator("#answer .class")).to_have_text(("IDC−", "IDC+")[int(row["predicted_label"])])
        said = probability(row["probability_calibrated"], language, beside=row["threshold_calibrated"])
        expect(page.locator("#answer .number")).to_have_text(said)
        expect(page.locator("#answer .views b")).to_have_count(8)
        slider = page.locator("#answer .opacity input")
        slider.fill("0")
        assert page.locator("#answer .cover").evaluate("image => getComputedStyle(image).opacity") == "0"
        for number in (3, 0):
            page.locator("#examples button").nth(number).click()
            logit = page_html.signed(float(predictor.predict(patches[number][None])["logit"][0]), language)
            expect(page.locator("#answer .legend")).to_contain_text("logit")
            expect(page.locator("#answer .legend")).to_contain_text(logit)
        assert slider.input_value() == "80", "each answer begins with its own opacity"
        expect(page.locator("#answer .views b")).to_have_count(8)
        pictured(page, language, theme, size, "patch")

        tab(page, "region", language)
        give(page, "region", region_file)
        expect(page.locator("#map .share")).to_contain_text("tejido" if language == "es" else "tissue")
        page.locator("#map .stack").click()
        expect(page.locator("#place .class")).to_be_visible()
        for kind, name in (("png", "map.png"), ("csv", "map.csv")):
            with page.expect_download() as download:
                page.locator(f"#map .{kind}").click()
            assert download.value.suggested_filename == name
        pictured(page, language, theme, size, "region")

        tab(page, "files", language)
        (tmp_path / "report.png").write_bytes(b"%PDF-1.7")
        give(page, "files", patch_file, tmp_path / "report.png")
        expect(page.locator("#files-answer li")).to_contain_text("report.png")
        expect(page.locator("#files-table")).to_contain_text("patch.png")
        expect(page.locator("#files-answer img, #files-table img")).to_have_count(0)
        with page.expect_download() as download:
            page.locator("#files-answer button").first.click()
        table = download.value.path().read_text(encoding="utf-8-sig").splitlines()
        assert table[0].startswith("file,probability,") and table[1].startswith("patch.png,")
        pictured(page, language, theme, size, "files")

        tab(page, "case", language)
        page.locator("#case-show").click()
        expect(page.locator("#case-answer .panels img")).to_have_count(4)
        pictured(page, language, theme, size, "case")
        tab(page, "card", language)
        expect(page.locator("#card")).to_contain_text("0,930 (0,900–0,950)" if language == "es" else "0.930 (0.900–0.950)")
        page.mouse.wheel(0, 5000)
        expect(page.locator("#warning")).to_be_in_viewport()
        expect(page.locator("#warning")).to_have_text(text("warning", language))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"


def test_the_threshold_redraws_the_map_without_asking_the_server(chromium, url, region_file):
    with opened(chromium, url) as page:
        tab(page, "region")
        give(page, "region", region_file)
        expect(page.locator("#map .share")).to_contain_text("%")
        asked = []
        page.on("request", lambda sent: asked.append(sent.url))
        before = page.locator("#map canvas").evaluate("canvas => canvas.toDataURL()")
        slider = page.locator("#map .threshold input")
        slider.fill("0.99")
        expect(page.locator("#map .share")).to_contain_text(re.compile(r"^0\.0%"))
        slider.fill("0.01")
        page.wait_for_timeout(100)
        assert page.locator("#map canvas").evaluate("canvas => canvas.toDataURL()") != before
        assert not [one for one in asked if "queue" in one or "run" in one]
        # a second region takes the place of the first, sliders and all
        page.locator("#region-example").click()
        expect(page.locator("#map .share")).not_to_contain_text(" of 67 patches")
        assert slider.input_value() not in ("0.01", "0.99")
        downloads = []
        page.on("download", lambda download: downloads.append(download))
        page.locator("#map .csv").click()
        page.wait_for_timeout(1000)
        assert len(downloads) == 1


def test_one_threshold_is_in_force_and_is_the_one_that_is_shown_counted_saved_and_used_for_a_place(chromium, url, predictor, tmp_path):
    region = noise(tmp_path / "region.png", 600)
    client = Client(url, verbose=False, analytics_enabled=False)
    found = client.predict(handle_file(str(region)), api_name="/region")

    def saved(page: Page) -> pd.DataFrame:
        with page.expect_download() as download:
            page.locator("#map .csv").click()
        return pd.read_csv(download.value.path(), encoding="utf-8-sig")

    with opened(chromium, url) as page:
        tab(page, "region")
        give(page, "region", region)
        expect(page.locator("#map .share")).to_contain_text(f"({found['above']} of {found['patches']} patches)")
        expect(page.locator("#map .threshold output")).to_have_text(threshold_said(predictor.threshold_calibrated, "en"))
        table = saved(page)
        pd.testing.assert_frame_equal(table, pd.DataFrame(found["table"]).round({"tissue": 3})[list(table.columns)], check_dtype=False)
        page.locator("#map .threshold input").fill("0.8")
        page.locator("#map .stack").click()
        expect(page.locator("#place .bar em")).to_have_text("threshold 0.80")
        expect(page.locator("#place .answer")).not_to_contain_text("How it was chosen")
        moved, table = client.predict(0.8, api_name="/threshold"), saved(page)
        expect(page.locator("#map .share")).to_contain_text(f"({moved['above']} of ")
        pd.testing.assert_frame_equal(table, pd.DataFrame(moved["table"]).round({"tissue": 3})[list(table.columns)], check_dtype=False)


def test_the_keyboard_is_enough(chromium, url, predictor, patches):
    with opened(chromium, url) as page:

        def focus(selector: str) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
                    return
            pytest.fail(f"{selector} is never focused")

        focus("#examples button")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "focus is seen"
        page.keyboard.press("Enter")
        expect(page.locator("#answer .class")).to_be_visible()
        focus(".opacity input")
        page.keyboard.press("Home")
        expect(page.locator("#answer .opacity output")).to_have_text("0 %")
        page.locator("[role=tab][aria-selected=true]").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#region-example")).to_be_visible()
        focus("#region-example")
        page.keyboard.press("Enter")
        expect(page.locator("#map .stack")).to_be_visible()
        focus("#map .stack")
        for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        expect(page.locator("#map .said")).to_contain_text("Column 4, row 3")
        page.keyboard.press("Enter")
        expect(page.locator("#place .answer")).to_be_visible()


def test_everything_that_can_be_used_has_a_name(chromium, url, region_file):
    with opened(chromium, url) as page:
        page.locator("#examples button").first.click()
        expect(page.locator("#answer .opacity")).to_be_visible()
        nameless = """() => [...document.querySelectorAll('button, a, input, select, textarea, img, [role=img]')].filter((one) =>
          one.checkVisibility() && one.getAttribute('alt') === null && !one.ariaLabel && !one.labels?.length && !one.innerText?.trim()
          && !one.title).map((one) => one.outerHTML.slice(0, 150))"""
        assert page.evaluate(nameless) == []


def test_what_is_no_tissue_gets_its_reason_and_no_number_in_view(chromium, url, tmp_path):
    Image.fromarray(load_sample_image("flower.jpg")[:50, :50]).save(tmp_path / "leaf.png")
    with opened(chromium, url, language="es") as page:
        give(page, "patch", tmp_path / "leaf.png")
        expect(page.locator("#answer .doubt")).to_contain_text("hematoxilina")
        expect(page.locator("#answer .number")).not_to_be_visible()
        page.locator("#answer summary").click()
        expect(page.locator("#answer .number")).to_be_visible()


def test_a_bad_file_gets_a_sentence_and_the_page_goes_on(chromium, url, patch_file, tmp_path):
    (tmp_path / "report.png").write_bytes(b"%PDF-1.7\n%%EOF\n")
    with opened(chromium, url) as page:
        for box, name in (("patch", "answer"), ("region", "map")):
            tab(page, box)
            give(page, box, tmp_path / "report.png")
            expect(page.locator(f"#{name} .problem")).to_contain_text("not an image")
        tab(page, "patch")
        give(page, "patch", patch_file)
        expect(page.locator("#answer .class")).to_be_visible()


def test_the_switch_changes_the_language_whatever_the_browsers_is(chromium, url):
    with opened(chromium, url, language="es") as page:
        page.get_by_role("link", name="English").click()
        expect(page.locator("h1")).to_have_text(text("title", "en"))
        expect(page.get_by_role("tab", name="Files")).to_be_visible()
        expect(page.locator("#patch")).to_contain_text("Click to Upload")


#: In the page, a file as it comes from the clipboard or from another window.
CARRIED = """(data) => { const given = new DataTransfer();
    given.items.add(new File([Uint8Array.from(data)], 'given.png', { type: 'image/png' })); return given; }"""


def test_a_picture_can_be_pasted(chromium, url, patch_file):
    with opened(chromium, url) as page:
        given = page.evaluate_handle(CARRIED, list(patch_file.read_bytes()))
        page.evaluate("(given) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: given, bubbles: true }))", given)
        expect(page.locator("#answer .class")).to_be_visible()


def test_a_picture_can_be_dragged_onto_the_page(chromium, url, patch_file):
    with opened(chromium, url) as page:
        given = page.evaluate_handle(CARRIED, list(patch_file.read_bytes()))
        page.locator("#patch button:has(input[type=file])").dispatch_event("drop", {"dataTransfer": given})
        expect(page.locator("#answer .class")).to_be_visible()


def noise(path, side: int):
    """A region whose every patch is tissue of a kind, many more than are answered at once."""
    values = np.random.default_rng(0).integers(60, 200, (side, side, 3))
    values[..., 1] //= 2
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_a_run_can_be_cancelled_and_a_browser_closed_in_it_while_others_go_on(chromium, url, patch_file, tmp_path):
    large = noise(tmp_path / "large.png", 4000)
    with opened(chromium, url) as page:
        tab(page, "region")
        give(page, "region", large)
        expect(page.locator("#map progress[max='6400']")).to_be_visible()
        page.locator("#region-cancel").click()
        expect(page.locator("#map")).to_contain_text("Cancelled")
        give(page, "region", large)
        expect(page.locator("#map progress[max='6400']")).to_be_visible()
    client = Client(url, verbose=False, analytics_enabled=False)
    assert client.predict(handle_file(str(patch_file)), api_name="/predict")["problem"] == ""
    # both long runs have ended, or this one would wait for them
    small = noise(tmp_path / "small.png", 200)
    assert client.submit(handle_file(str(small)), api_name="/region").result(timeout=60)["patches"] == 16


def test_two_windows_at_once_keep_their_own_regions(chromium, url, region_file, tmp_path):
    other = noise(tmp_path / "other.png", 200)
    with opened(chromium, url) as one, opened(chromium, url) as two:
        for page, path in ((one, region_file), (two, other)):
            tab(page, "region")
            give(page, "region", path)
        for page in (one, two):
            expect(page.locator("#map .share")).to_contain_text("%")
        expect(two.locator("#map .share")).to_contain_text("of 16 patches")
        for page in (one, two):
            page.locator("#map .stack").click()
            expect(page.locator("#place .class")).to_be_visible()
        pictures = [page.locator("#place img").first.get_attribute("src") for page in (one, two)]
        assert pictures[0] != pictures[1]


def test_a_zip_is_answered_too_and_its_table_sorts_by_number(chromium, url, predictor, patches, tmp_path):
    expected = [round(value, 4) for value in predictor.predict(np.stack(patches))["probability_calibrated"]]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number in range(70):
            stream = io.BytesIO()
            Image.fromarray(patches[number % len(patches)]).save(stream, "PNG")
            archive.writestr(f"{number:02}.png", stream.getvalue())
    with opened(chromium, url) as page:
        tab(page, "files")
        give(page, "files", tmp_path / "some.zip")
        expect(page.locator("#files-answer")).to_contain_text("Patches answered: 70")
        header = page.locator("#files-table thead th").nth(1)
        expect(header).to_be_visible()
        cells = page.locator("#files-table [role=gridcell][aria-colindex='2']")
        for order, extreme in (("Sort ascending", min), ("Sort descending", max)):
            header.hover()
            header.locator(".cell-menu-button").click()
            page.get_by_role("menuitem", name=order).click()
            expect(page.get_by_role("menu")).to_have_count(0)
            shown = [float(cell) for cell in cells.all_inner_texts()]
            # rows that are out of view are not part of the page
            assert len(shown) > 5 and shown == sorted(shown, reverse=extreme is max) and shown[0] == extreme(expected)


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_person_reads_what_it_is_logs_in_and_out(chromium, secured_url, language):
    page = chromium.new_context(locale={"en": "en-GB", "es": "es-PA"}[language]).new_page()
    page.set_default_timeout(60_000)
    page.goto(secured_url)
    for one in ("en", "es"):
        expect(page.get_by_text(text("login", one))).to_be_visible()
    page.locator("input").nth(0).fill("me")
    page.locator("input[type=password]").fill("secret")
    page.locator("button").last.click()
    expect(page.locator("#examples img")).to_have_count(6)
    page.get_by_role("link", name=text("logout", language)).click()
    expect(page.locator("input[type=password]")).to_be_visible()
    page.reload()
    expect(page.locator("input[type=password]")).to_be_visible()
    page.context.close()
