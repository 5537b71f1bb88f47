"""The Gradio interface around a ``Predictor``: one patch, a region, many files, a case of an archive, and the model's card.

Used by ``bhi app`` and notebook 07. It listens on this machine only unless told otherwise, keeps no upload after its answer, and asks no
other host for anything. ``app.tabs`` holds the page and ``app.api`` the named endpoints, which say the same.
"""

import asyncio
import atexit
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware

from bhi_utils.app import api, gradio_guard, model_card, page_html, request_checks, start_options, tabs, upload_store
from bhi_utils.app.slide_answer import Cases
from bhi_utils.app.start_options import Start
from bhi_utils.app.upload_store import Kept, Uploads
from bhi_utils.core import messages
from bhi_utils.core.paths import InputError, cache_dir
from bhi_utils.data import archive
from bhi_utils.data.archive import Pack
from bhi_utils.data.input_checks import GLASS_LEVEL, PATCH
from bhi_utils.data.phantom import synthetic_cohort
from bhi_utils.model.predictor import Predictor

#: Seconds between two looks for uploads and regions that nobody needs any more.
SWEEP = 10
#: A region of 10,000×10,000 pixels is 300 MB without compression.
MAX_UPLOAD = "400mb"
#: Requests that may wait, and windows whose state Gradio remembers: each takes some hundred kilobytes.
WAITING, WINDOWS = 256, 128


def synthetic_examples() -> list[np.ndarray]:
    """Six drawn patches, none of them tissue: uint8 arrays (50, 50, 3), of each slide the fullest IDC+ and the fullest IDC−."""
    found: list[np.ndarray] = []
    for index in itertools.count():
        drawn = list(synthetic_cohort.draw_slide(index, patches=2 * synthetic_cohort.FEWEST_PATCHES, seed=7).patches())
        whole = [[pixels for name, pixels in drawn if f"/{label}/" in name and pixels.shape == (PATCH, PATCH, 3)] for label in (1, 0)]
        if all(whole):  # a small slide may lack whole patches of one class
            found += [min(patches, key=lambda pixels: (pixels.min(axis=-1) >= GLASS_LEVEL).mean()) for patches in whole]
        if len(found) >= 6:
            break
    return found


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
    gradio_guard.install(page_html.head())
    examples = synthetic_examples()
    endpoints = api.Endpoints(predictor, Cases(cases), kept, uploads.taken)

    def opened(asked: str) -> tuple[str, ...]:
        spoken = asked if asked in messages.LANGUAGES else "en"
        heading = page_html.heading(predictor.bundle, spoken, logout=auth)
        pictures = page_html.render("examples", spoken, pictures=[page_html.data_url(patch) for patch in examples])
        hints = (page_html.render("hint", spoken, key=f"empty_{name}") for name in ("patch", "region", "files", "case"))
        return spoken, page_html.render("warning", spoken), heading, pictures, *hints, model_card.shown(predictor, spoken)

    def closed(request: gr.Request) -> None:
        kept.drop(request.session_hash or "")
        gradio_guard.forget(demo, request.session_hash)

    with gr.Blocks(title=messages.text("title", "en"), analytics_enabled=False) as demo:
        language = gr.Textbox("en", visible="hidden", elem_id="language")
        warning = tabs.piece(page_html.render("warning", "en"), elem_id="warning")
        heading = tabs.piece(page_html.heading(predictor.bundle, "en"), elem_id="heading")
        with gr.Tabs():
            with gr.Tab(tabs.I18N("tab_patch"), id="patch"):
                offered, patch = tabs.patch_tab(endpoints, language, examples)
            with gr.Tab(tabs.I18N("tab_region"), id="region"):
                region = tabs.region_tab(endpoints, language)
            with gr.Tab(tabs.I18N("tab_files"), id="files"):
                files = tabs.files_tab(endpoints, language)
            with gr.Tab(tabs.I18N("tab_case"), id="case") as tab:
                case = tabs.case_tab(endpoints, language, tab)
            with gr.Tab(tabs.I18N("tab_card"), id="card"):
                card = tabs.piece(model_card.shown(predictor, "en"), elem_id="card")
        api.offer(endpoints, demo)
        texts = [language, warning, heading, offered, patch, region, files, case, card]
        script = "() => { document.title = window.bhi.title; return window.bhi.language; }"
        demo.load(opened, language, texts, js=script, queue=False, show_progress="hidden", api_visibility="private")
        demo.unload(closed)
    return demo.queue(max_size=WAITING)


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
            for count in (1, 2, 3):  # the network is compiled for one patch and for many: nobody's first answer waits for it
                predictor.predict(np.zeros((count, PATCH, PATCH, 3), np.uint8))
            opened.callback(demo.close, verbose=False)
            _serve(demo, checked, uploads, kept)
        except OSError as error:
            raise start_options.why(error, checked) from error
        _close_with(demo, opened.pop_all())
    here = str(demo.local_url)
    url = demo.share_url or here
    if checked.everywhere and not demo.share_url:
        url = f"{urlsplit(here).scheme}://{checked.address()}:{demo.server_port}/"
    if block:
        print(f"The interface is at {url}{f', on this machine at {here}' if url != here else ''} (Ctrl+C ends it).", flush=True)
        start_options.stop_by_signal()
        demo.block_thread()
        demo.close(verbose=False)
    return url, demo


def _serve(demo: gr.Blocks, start: Start, uploads: Uploads, kept: Kept) -> None:
    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP)
            await asyncio.to_thread(uploads.sweep, gradio_guard.waiting(demo))
            kept.sweep()
            gradio_guard.forget(demo)

    @asynccontextmanager
    async def swept(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(sweep())
        yield
        task.cancel()

    hosts = start.names()
    door = Middleware(request_checks.Door, hosts=hosts, trusted=start.trusted(), frames=start.frame_ancestors(), uploads=uploads)
    off: dict[str, Any] = dict.fromkeys(("inline", "inbrowser", "ssr_mode", "mcp_server", "run_history", "enable_monitoring"), False)
    demo.launch(
        server_name=f"[{start.host}]" if ":" in start.host else start.host,
        server_port=start.port,
        share=start.share,
        auth=start.auth,
        auth_message=page_html.render("login", "en"),
        ssl_certfile=str(start.certfile) if start.certfile else None,
        ssl_keyfile=str(start.keyfile or start.certfile) if start.certfile else None,
        # this process asks itself whether it runs; the certificate is made out to another name
        ssl_verify=False,
        theme=gr.themes.Default(primary_hue="blue", font=page_html.FONTS, font_mono=page_html.FONTS_MONO),
        css=page_html.asset("app.css"),
        app_kwargs={
            "middleware": [door],
            "lifespan": swept,
            "exception_handlers": {RequestValidationError: request_checks.malformed},
        },
        i18n=tabs.I18N,
        footer_links=[],
        max_file_size=MAX_UPLOAD,
        state_session_capacity=WINDOWS,
        prevent_thread_lock=True,
        quiet=True,
        **off,
    )
    if start.share:
        if not demo.share_url:
            raise InputError("--share needs Gradio's server, which gave no public address: leave it out, or try again later.")
        hosts.add(str(urlsplit(demo.share_url).hostname))


def _close_with(demo: gr.Blocks, opened: ExitStack) -> None:
    """Has the folder of uploads go with the page, however that ends."""

    def close(verbose: bool = False) -> None:
        opened.close()
        atexit.unregister(opened.close)

    atexit.register(opened.close)
    vars(demo)["close"] = close
