"""The interface in a real Chromium, as a person uses it."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from bhi_utils import app_page, plots_app

pytestmark = pytest.mark.browser


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(chromium, url, request) -> Iterator[Page]:
    """The page, opened; fails at the end on any console error, page error, or request to another host."""
    context = chromium.new_context(viewport=dict(zip(("width", "height"), request.param, strict=True)))
    page = context.new_page()
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


def upload(page: Page, path) -> None:
    page.locator("#patch input[type=file]").set_input_files(str(path))


def clear(page: Page) -> None:
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()


def test_an_uploaded_patch_gets_class_probability_and_evidence_map(page, predictor, patches, patch_file):
    row = predictor.predict(patches[0][None]).iloc[0]
    upload(page, patch_file)
    expect(page.locator(".answer .class")).to_have_text(("IDC−", "IDC+")[int(row["predicted_label"])])
    expect(page.locator(".answer .number")).to_have_text(plots_app.number(row["probability_calibrated"]))
    expect(page.locator(".answer")).to_contain_text(f"threshold {plots_app.number(predictor.threshold_calibrated)}")
    expect(page.locator(".legend")).to_contain_text(f"logit, {app_page.signed(row['logit'])}")
    for name in ("evidence", "read"):
        picture = page.locator(f"#{name} img")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 400
        assert picture.bounding_box()["height"] > 100
    assert page.locator("#patch img").bounding_box()["height"] > 100


def test_the_warning_stays_in_view_and_nothing_sticks_out(page, patch_file):
    upload(page, patch_file)
    expect(page.locator(".legend")).to_be_visible()
    page.get_by_text("All numbers").click()
    expect(page.locator("#details")).to_contain_text("probability_calibrated")
    page.mouse.move(150, 500)
    page.mouse.wheel(0, 5000)
    page.wait_for_function("window.scrollY > 50")
    expect(page.locator("#warning")).to_be_in_viewport()
    expect(page.locator("#warning")).to_have_text("Research use only, not a medical device.")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_example_is_one_click_away(page, predictor, patches):
    labels = predictor.predict(np.stack(patches))
    for number in (0, 3):
        page.locator("#examples button").nth(number).click()
        expect(page.locator(".legend")).to_contain_text(f"logit, {app_page.signed(labels['logit'][number])}")
        expect(page.locator(".answer .class")).to_have_text(("IDC−", "IDC+")[labels["predicted_label"][number]])


def test_a_bad_file_gets_a_sentence_and_the_page_goes_on(page, patch_file, tmp_path):
    report, wide = tmp_path / "report.png", tmp_path / "wide.png"
    report.write_bytes(b"%PDF-1.7\n%%EOF\n")
    Image.new("RGB", (400, 300), (200, 120, 180)).save(wide)
    upload(page, report)
    expect(page.locator(".answer.problem")).to_contain_text("not an image")
    clear(page)
    expect(page.locator(".answer.empty")).to_be_visible()
    upload(page, wide)
    expect(page.locator(".answer.problem")).to_contain_text("400×300")
    expect(page.locator("#evidence img")).to_have_count(0)
    clear(page)
    upload(page, patch_file)
    expect(page.locator(".answer .class")).to_be_visible()
