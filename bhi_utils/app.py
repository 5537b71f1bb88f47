"""The Gradio interface around a ``Predictor``: one patch, a region, many files, a case of an archive, and the model's card.

Used by ``bhi app`` and notebook 07. It listens on this machine only unless told otherwise, keeps no upload after its answer, and asks no
other host for anything. ``app_tabs`` holds the page and ``app_api`` the named endpoints, which say the same.
"""

import atexit
import itertools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from starlette.middleware import Middleware

from bhi_utils import app_api, app_card, app_guard, app_page, app_store, app_tabs, app_words, archive, phantom, quality
from bhi_utils.app_cases import Cases
from bhi_utils.archive import Pack
from bhi_utils.paths import InputError, cache_dir
from bhi_utils.predictor import Predictor

PORT = 7860
#: Whatever an answer has not deleted itself, such as an upload that nobody asked about: how often it is looked for, and the age at which it
#: goes, in seconds; all goes when the interface is closed.
DELETE_CACHE = (60, 300)
#: A region of 10,000×10,000 pixels is 300 MB without compression.
MAX_UPLOAD = "400mb"
#: Requests that may wait, and windows whose state Gradio remembers: each takes some hundred kilobytes.
WAITING, WINDOWS = 256, 128
USER, PASSWORD = "BHI_USER", "BHI_PASSWORD"


def synthetic_examples(pairs: int = 3, *, seed: int = 7) -> list[tuple[str, np.ndarray]]:
    """Patches drawn by ``phantom``, none of them tissue: ``pairs`` of each class, as name and uint8 array (50, 50, 3)."""
    found: list[tuple[str, np.ndarray]] = []
    for index in itertools.count():
        if len(found) >= 2 * pairs:
            return found
        drawn: dict[str, list[np.ndarray]] = {"1": [], "0": []}
        for name, pixels in phantom.draw_slide(index, patches=2 * phantom.FEWEST_PATCHES, seed=seed).patches():
            if pixels.shape == (quality.PATCH, quality.PATCH, 3):
                drawn[Path(name).parent.name].append(pixels)
        if all(drawn.values()):  # a small slide may lack whole patches of one class
            for label, patches in drawn.items():
                fullest = min(patches, key=lambda pixels: (pixels.min(axis=-1) >= quality.GLASS_LEVEL).mean())
                found.append((f"drawn_{index}_class{label}", fullest))


def synthetic_cases() -> Pack:
    """A few drawn cases, where no archive is given."""
    source = archive.find_source("phantom", cache=cache_dir(), phantom={"cases": 6, "patches_per_case": 150})
    return archive.pack(source, cache_dir(), progress=False)


def build(predictor: Predictor, folder: Path, *, cases: Callable[[], Pack] = synthetic_cases) -> gr.Blocks:
    """The page, not yet served.

    Args:
        predictor: the model.
        folder: where Gradio puts uploads.
        cases: opens the archive whose cases can be looked at.
    """
    kept, examples = app_store.Kept(), [patch for _, patch in synthetic_examples()]
    endpoints = app_api.Endpoints(predictor, Cases(cases), kept, partial(app_store.taken, folder=folder))
    i18n = gr.I18n(**app_words.labels())

    def opened(language: str) -> tuple[str, ...]:
        spoken = language if language in app_words.LANGUAGES else "en"
        hints = [app_page.hint(key, spoken) for key in ("empty_patch", "empty_region", "empty_files", "empty_case")]
        above = (spoken, app_page.warning(spoken), app_page.heading(predictor.bundle, spoken))
        return (*above, app_tabs.examples_shown(examples, spoken), *hints, app_card.shown(predictor, spoken))

    def closed(request: gr.Request) -> None:
        kept.drop(request.session_hash)
        demo.app.state_holder.session_data.pop(request.session_hash, None)

    with gr.Blocks(title=app_words.text("title", "en"), analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        language = gr.Textbox("en", visible="hidden", elem_id="language")
        warning = app_tabs.piece(app_page.warning("en"), elem_id="warning")
        heading = app_tabs.piece(app_page.heading(predictor.bundle, "en"), elem_id="heading")
        with gr.Tabs():
            with gr.Tab(i18n("tab_patch"), id="patch"):
                offered, patch = app_tabs.patch_tab(endpoints, language, examples, i18n)
            with gr.Tab(i18n("tab_region"), id="region"):
                region = app_tabs.region_tab(endpoints, language, i18n)
            with gr.Tab(i18n("tab_files"), id="files"):
                files = app_tabs.files_tab(endpoints, language, i18n)
            with gr.Tab(i18n("tab_case"), id="case") as tab:
                case = app_tabs.case_tab(endpoints, language, i18n, tab)
            with gr.Tab(i18n("tab_card"), id="card"):
                card = app_tabs.piece(app_card.shown(predictor, "en"), elem_id="card")
        app_api.offer(endpoints)
        texts = [language, warning, heading, offered, patch, region, files, case, card]
        script = "() => { document.title = window.bhi.title; return window.bhi.language; }"
        demo.load(opened, language, texts, js=script, queue=False, show_progress="hidden", api_visibility="private")
        demo.unload(closed)
    demo.bhi_i18n = i18n
    return demo.queue(max_size=WAITING)


def warm(predictor: Predictor) -> None:
    """Have the network compiled for one patch and for many, so that nobody's first answer waits for it."""
    for count in (1, 2, 3):
        predictor.predict(np.zeros((count, quality.PATCH, quality.PATCH, 3), np.uint8))


def launch(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int | None = PORT,
    share: bool = False,
    block: bool = False,
    cases: Callable[[], Pack] = synthetic_cases,
) -> tuple[str, gr.Blocks]:
    """Serve the interface; one that an earlier call in this process left is closed first, so that its port is free.

    With ``BHI_USER`` and ``BHI_PASSWORD`` in the environment, the page asks for them.

    Args:
        predictor: the model.
        host: address to listen on; the default is reached from this machine only.
        port: its port; 0 or None takes a free one.
        share: whether Gradio's servers make it public, for which it asks another host.
        block: print the address and wait until interrupted, as a command does.
        cases: opens the archive whose cases can be looked at; drawn ones by default.

    Returns:
        the address to open, and the page (its ``close()`` ends it and frees the port).

    Raises:
        InputError: the port is taken, the host is no address of this machine, or only one of user and password is set.
    """
    gr.close_all(verbose=False)
    auth, chosen = _auth(), _find_port(host, port or 0)
    opened = ExitStack()
    folder = opened.enter_context(app_store.own_folder())
    try:
        demo = build(predictor, folder, cases=cases)
        warm(predictor)
        _serve(demo, host, chosen, share=share, auth=auth)
    except OSError as error:  # somebody took the port in between
        opened.close()
        raise InputError(_taken(host, chosen)) from error
    _close_with(demo, opened)
    if block:
        open_to_all = "" if auth or host in ("127.0.0.1", "localhost", "::1") else f" Anybody can use it: set {USER} and {PASSWORD}."
        print(f"The interface is at {demo.share_url or demo.local_url} (Ctrl+C ends it).{open_to_all}", flush=True)
        _wait(demo)
    return demo.local_url, demo


def _serve(demo: gr.Blocks, host: str, port: int, **options: Any) -> None:
    app_guard.install()
    fonts = {"font": app_page.FONTS, "font_mono": app_page.FONTS_MONO}
    demo.launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Default(primary_hue="blue", **fonts),
        css=app_page.style(),
        app_kwargs={"middleware": [Middleware(app_guard.Early, script=app_page.head())]},
        i18n=demo.bhi_i18n,
        footer_links=[],
        max_file_size=MAX_UPLOAD,
        state_session_capacity=WINDOWS,
        prevent_thread_lock=True,
        **dict.fromkeys(("inline", "inbrowser", "ssr_mode", "mcp_server", "run_history", "enable_monitoring"), False),
        quiet=True,
        **options,
    )


def _auth() -> tuple[str, str] | None:
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if bool(user) != bool(password):
        raise InputError(f"{USER} and {PASSWORD} belong together: set both, or neither.")
    return (user, password) if user else None


def _close_with(demo: gr.Blocks, opened: ExitStack) -> None:
    """Have the folder of uploads go with the page, however that ends."""
    atexit.register(opened.close)
    close = demo.close

    def both(verbose: bool = True) -> None:
        close(verbose=verbose)
        opened.close()
        atexit.unregister(opened.close)

    demo.close = both


def _wait(demo: gr.Blocks) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        # ended by this signal, Python would leave the folder of uploads behind
        signal.signal(signal.SIGTERM, stop)
    demo.block_thread()
    demo.close(verbose=False)


def _bind(host: str, port: int) -> int:
    """Listen for a moment; the port's number. OSError when it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if sys.platform != "win32":  # there it would let two programs share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        return probe.getsockname()[1]


def _find_port(host: str, port: int) -> int:
    """``port`` itself when nobody listens there, or any free one for 0."""
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port: give a number from 1024 to 65535, or 0 for any free one.")
    try:
        free = _bind(host, 0)
    except OSError as error:
        raise InputError(f"{host} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for every network.") from error
    if port == 0:
        return free
    try:
        return _bind(host, port)
    except PermissionError as error:
        raise InputError(f"Port {port} needs an administrator: give one from 1024 up, such as {PORT}.") from error
    except OSError as error:
        raise InputError(_taken(host, port)) from error


def _taken(host: str, port: int) -> str:
    return f"Port {port} is taken by another program: try {_bind(host, 0)}, or 0 for any free one."
