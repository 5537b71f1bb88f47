"""The Gradio interface around a ``Predictor``: one patch, a region, many files, a case of an archive, and the model's card.

Used by ``bhi app`` and notebook 07. It listens on this machine only unless told otherwise, keeps no upload after its answer, and asks no
other host for anything. ``app.tabs`` holds the page and ``app.api`` the named endpoints, which say the same.
"""

import asyncio
import atexit
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware

from bhi_utils.app import api, gradio_guard, model_card, page_html, request_checks, start_options, tabs, upload_store
from bhi_utils.app.case_slide import Cases
from bhi_utils.app.start_options import Start
from bhi_utils.app.upload_store import Kept, Uploads
from bhi_utils.core import messages
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.data import archive, input_checks
from bhi_utils.data.archive import Pack
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model.predictor import Predictor

#: Seconds between two looks for uploads and regions that nobody needs any more.
SWEEP = 10
#: A region of 10,000×10,000 pixels is 300 MB without compression.
MAX_UPLOAD = "400mb"
#: Requests that may wait, and windows whose state Gradio remembers: each takes some hundred kilobytes.
WAITING, WINDOWS = 256, 128


def synthetic_examples(pairs: int = 3, *, seed: int = 7) -> list[tuple[str, np.ndarray]]:
    """Patches drawn by ``phantom``, none of them tissue: ``pairs`` of each class, as name and uint8 array (50, 50, 3)."""
    found: list[tuple[str, np.ndarray]] = []
    for index in itertools.count():
        if len(found) >= 2 * pairs:
            return found
        drawn: dict[str, list[np.ndarray]] = {"1": [], "0": []}
        for name, pixels in synthetic_cohort.draw_slide(index, patches=2 * synthetic_cohort.FEWEST_PATCHES, seed=seed).patches():
            if pixels.shape == (input_checks.PATCH, input_checks.PATCH, 3):
                drawn[Path(name).parent.name].append(pixels)
        if all(drawn.values()):  # a small slide may lack whole patches of one class
            for label, patches in drawn.items():
                fullest = min(patches, key=lambda pixels: (pixels.min(axis=-1) >= input_checks.GLASS_LEVEL).mean())
                found.append((f"drawn_{index}_class{label}", fullest))


def synthetic_cases() -> Pack:
    """A few drawn cases, where no archive is given."""
    source = archive.find_source("phantom", cache=cache_dir(), phantom={"cases": 6, "patches_per_case": 150})
    return archive.pack(source, cache_dir(), progress=False)


def build(predictor: Predictor, uploads: Uploads, kept: Kept, *, cases: Callable[[], Pack], auth: bool = False) -> gr.Blocks:
    """The page, not yet served.

    Args:
        predictor: the model.
        uploads: where Gradio puts them.
        kept: the regions of open windows.
        cases: opens the archive whose cases can be looked at.
        auth: whether people log in, and want a way out.
    """
    gradio_guard.install()
    examples = [patch for _, patch in synthetic_examples()]
    endpoints = api.Endpoints(predictor, Cases(cases), kept, uploads.taken)
    i18n = gr.I18n(**messages.TEXTS)

    def opened(language: str) -> tuple[str, ...]:
        spoken = language if language in messages.LANGUAGES else "en"
        hints = [page_html.hint(key, spoken) for key in ("empty_patch", "empty_region", "empty_files", "empty_case")]
        above = (spoken, page_html.warning(spoken), page_html.heading(predictor.bundle, spoken, logout=auth))
        return (*above, tabs.examples_shown(examples, spoken), *hints, model_card.shown(predictor, spoken))

    def closed(request: gr.Request) -> None:
        kept.drop(request.session_hash)
        gradio_guard.forget(demo, request.session_hash)

    with gr.Blocks(title=messages.text("title", "en"), analytics_enabled=False) as demo:
        language = gr.Textbox("en", visible="hidden", elem_id="language")
        warning = tabs.piece(page_html.warning("en"), elem_id="warning")
        heading = tabs.piece(page_html.heading(predictor.bundle, "en"), elem_id="heading")
        with gr.Tabs():
            with gr.Tab(i18n("tab_patch"), id="patch"):
                offered, patch = tabs.patch_tab(endpoints, language, examples, i18n)
            with gr.Tab(i18n("tab_region"), id="region"):
                region = tabs.region_tab(endpoints, language, i18n)
            with gr.Tab(i18n("tab_files"), id="files"):
                files = tabs.files_tab(endpoints, language, i18n)
            with gr.Tab(i18n("tab_case"), id="case") as tab:
                case = tabs.case_tab(endpoints, language, i18n, tab)
            with gr.Tab(i18n("tab_card"), id="card"):
                card = tabs.piece(model_card.shown(predictor, "en"), elem_id="card")
        api.offer(endpoints, demo)
        texts = [language, warning, heading, offered, patch, region, files, case, card]
        script = "() => { document.title = window.bhi.title; return window.bhi.language; }"
        demo.load(opened, language, texts, js=script, queue=False, show_progress="hidden", api_visibility="private")
        demo.unload(closed)
    demo.bhi_i18n = i18n
    return demo.queue(max_size=WAITING)


def warm(predictor: Predictor) -> None:
    """Have the network compiled for one patch and for many, so that nobody's first answer waits for it."""
    for count in (1, 2, 3):
        predictor.predict(np.zeros((count, input_checks.PATCH, input_checks.PATCH, 3), np.uint8))


def launch(
    predictor: Predictor, *, block: bool = False, cases: Callable[[], Pack] = synthetic_cases, **start: Any
) -> tuple[str, gr.Blocks]:
    """Serve the interface; one that an earlier call in this process left is closed first, so that its port is free.

    With ``BHI_USER`` and ``BHI_PASSWORD`` in the environment, the page asks for them.

    Args:
        predictor: the model.
        block: print the address and wait until interrupted, as a command does.
        cases: opens the archive whose cases can be looked at; drawn ones by default.
        start: where and for whom, as ``app.start_options.check`` takes it: ``host``, ``port``, ``share``, ``allowed_hosts``, ….

    Returns:
        the address to open, and the page (its ``close()`` ends it and frees the port).

    Raises:
        InputError: see ``app.start_options.check``; or the app cannot be started, and why.
    """
    gr.close_all(verbose=False)
    checked = start_options.check(**start)
    with ExitStack() as opened:
        try:
            uploads, kept = Uploads(opened.enter_context(upload_store.own_folder())), Kept()
            opened.callback(uploads.clear)
            demo = build(predictor, uploads, kept, cases=cases, auth=checked.auth is not None)
            warm(predictor)
            opened.callback(demo.close, verbose=False)
            _serve(demo, checked, uploads, kept)
        except OSError as error:
            raise start_options.why(error, checked) from error
        _close_with(demo, opened.pop_all())
    url = demo.share_url or demo.local_url
    if checked.everywhere and not demo.share_url:
        url = f"{urlsplit(url).scheme}://{checked.address()}:{demo.server_port}/"
    if block:
        here = f", on this machine at {demo.local_url}" if checked.everywhere or demo.share_url else ""
        print(f"The interface is at {url}{here} (Ctrl+C ends it).", flush=True)
        _wait(demo)
    return url, demo


def _serve(demo: gr.Blocks, start: Start, uploads: Uploads, kept: Kept) -> None:
    @asynccontextmanager
    async def swept(_: Any) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP)
                await asyncio.to_thread(uploads.sweep, gradio_guard.waiting(demo))
                kept.sweep()
                gradio_guard.forget(demo)

        task = asyncio.create_task(sweep())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    fonts = {"font": page_html.FONTS, "font_mono": page_html.FONTS_MONO}
    hosts, trusted = start.names(), start.trusted()
    door = Middleware(request_checks.Door, hosts=hosts, trusted=trusted, frames=start.frame_ancestors(), uploads=uploads)
    demo.launch(
        server_name=f"[{start.host}]" if ":" in start.host else start.host,
        server_port=start.port,
        share=start.share,
        auth=start.auth,
        auth_message=page_html.login(),
        ssl_certfile=start.certfile and str(start.certfile),
        ssl_keyfile=start.keyfile and str(start.keyfile),
        # this process asks itself whether it runs; the certificate is made out to another name
        ssl_verify=False,
        theme=gr.themes.Default(primary_hue="blue", **fonts),
        css=page_html.style(),
        app_kwargs={
            "middleware": [door, Middleware(gradio_guard.Early, script=page_html.head())],
            "lifespan": swept,
            "exception_handlers": {RequestValidationError: request_checks.malformed},
        },
        i18n=demo.bhi_i18n,
        footer_links=[],
        max_file_size=MAX_UPLOAD,
        state_session_capacity=WINDOWS,
        prevent_thread_lock=True,
        **dict.fromkeys(("inline", "inbrowser", "ssr_mode", "mcp_server", "run_history", "enable_monitoring"), False),
        quiet=True,
    )
    if start.share:
        if not demo.share_url:
            raise InputError("--share needs Gradio's server, which gave no public address: leave it out, or try again later.")
        hosts.add(urlsplit(demo.share_url).hostname)


def _close_with(demo: gr.Blocks, opened: ExitStack) -> None:
    """Have the folder of uploads go with the page, however that ends."""

    def close(verbose: bool = False) -> None:
        opened.close()
        atexit.unregister(opened.close)

    atexit.register(opened.close)
    demo.close = close


def _wait(demo: gr.Blocks) -> None:
    start_options.stop_by_signal()
    demo.block_thread()
    demo.close(verbose=False)
