"""The Gradio interface around a ``Predictor``: one patch in; class, calibrated probability and evidence map out.

Used by ``bhi app`` and notebook 07. It listens on this machine only unless told otherwise, keeps no upload, and asks no other
host for anything. ``answer`` is all that the page and its API say; ``app_page`` says it in HTML.
"""

import itertools
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from bhi_utils import app_page, phantom, plots_app, quality
from bhi_utils.paths import InputError
from bhi_utils.plots import CLASSES
from bhi_utils.predictor import Predictor

PORT = 7860
#: How often uploads are looked through, and the age at which they go, in seconds; all go when the interface is closed.
DELETE_CACHE = (120, 600)
MAX_UPLOAD = "20mb"


def answer(predictor: Predictor, path: str | Path) -> tuple[dict[str, Any], np.ndarray | None, np.ndarray | None]:
    """What the interface answers for a file.

    Args:
        predictor: the model.
        path: any file, whatever its name says.

    Returns:
        JSON-able details: ``problem`` (one sentence, empty when there is an answer), ``notes``, ``size`` and, without a
        problem, ``label``, ``predicted_label``, ``logit``, ``probability``, ``probability_calibrated``, ``threshold``,
        ``threshold_calibrated`` and ``evidence_limit`` (the logit of the map's full colours); the evidence map over the
        patch, uint8 array (400, 400, 3); and the patch as the model reads it, enlarged alike. None for both with a problem.
    """
    checked = quality.check_file(Path(path))
    details: dict[str, Any] = {"problem": checked.problem, "notes": list(checked.notes), "size": list(checked.size)}
    if checked.patch is None:
        return details, None, None
    if predictor.seen.pixels(checked.patch[None])[0]:
        details["notes"].insert(0, app_page.SEEN)
    table, maps = predictor.predict_with_evidence(checked.patch[None])
    row = table.iloc[0]
    predicted = int(row["predicted_label"])
    details |= {"label": CLASSES[predicted], "predicted_label": predicted}
    details |= {name: float(row[name]) for name in ("logit", "probability", "probability_calibrated")}
    details |= {"threshold": float(predictor.threshold), "threshold_calibrated": float(predictor.threshold_calibrated)}
    details["evidence_limit"] = plots_app.limit(maps[0])
    return details, plots_app.overlay(checked.patch, maps[0]), plots_app.enlarged(checked.patch)


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


def build(predictor: Predictor, examples: list[tuple[str, np.ndarray]] | None = None) -> gr.Blocks:
    """The page, not yet served.

    Args:
        predictor: the model.
        examples: patches one click away, as name and uint8 array (50, 50, 3), never real ones; None draws synthetic ones.
    """

    def predict(file: dict[str, Any] | None) -> tuple[dict[str, Any] | None, np.ndarray | None, np.ndarray | None]:
        """Class, calibrated probability, threshold and evidence map of one 50×50 patch, and the patch as it was read."""
        if file is None:
            return None, None, None
        return answer(predictor, file["path"] or "")

    def say(details: dict[str, Any] | None) -> tuple[str, str]:
        return app_page.verdict(predictor.bundle, details), app_page.legend(details)

    with gr.Blocks(title=app_page.TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE) as demo:
        gr.HTML(app_page.warning(), elem_id="warning")
        gr.HTML(app_page.heading(predictor.bundle), elem_id="heading")
        with gr.Row():
            with gr.Column():
                box = _upload_box()
                _offer(synthetic_examples() if examples is None else examples, box)
            with gr.Column():
                verdict = gr.HTML(say(None)[0], elem_id="verdict")
                with gr.Row():
                    evidence, read = _picture("Evidence map", "evidence"), _picture("Patch as read", "read")
                legend = gr.HTML(elem_id="legend")
        with gr.Accordion("All numbers", open=False):
            details = gr.JSON(label="as the API returns them", elem_id="details")
        # preprocess=False: Gradio would decode the file itself and fail with a message of its own
        options = {"preprocess": False, "concurrency_limit": 1, "show_progress": "minimal"}
        asked = box.change(predict, box, [details, evidence, read], api_name="predict", **options)
        asked.then(say, details, [verdict, legend], api_visibility="private", show_progress="hidden")
    return demo.queue(max_size=32)


def launch(predictor: Predictor, *, host: str = "127.0.0.1", port: int | None = PORT, block: bool = False) -> tuple[str, gr.Blocks]:
    """Serve the interface; one that an earlier call in this process left is closed first, so that its port is free.

    Args:
        predictor: the model.
        host: address to listen on; the default is reached from this machine only.
        port: its port; 0 or None takes a free one.
        block: print the address and wait until interrupted, as a command does.

    Returns:
        the address to open, and the page (its ``close()`` ends it and frees the port).

    Raises:
        InputError: the port is taken, or the host is no address of this machine.
    """
    gr.close_all(verbose=False)
    chosen = _find_port(host, port or 0)
    demo = build(predictor)
    fonts = {"font": app_page.FONTS, "font_mono": app_page.FONTS_MONO}
    try:
        demo.launch(
            server_name=host,
            server_port=chosen,
            theme=gr.themes.Default(primary_hue="blue", **fonts),
            css=app_page.CSS,
            footer_links=[],
            max_file_size=MAX_UPLOAD,
            prevent_thread_lock=True,
            **dict.fromkeys(("share", "inline", "inbrowser", "ssr_mode", "mcp_server", "run_history", "enable_monitoring"), False),
            quiet=True,
        )
    except OSError as error:  # somebody took the port in between
        raise InputError(_taken(host, chosen)) from error
    if block:
        print(f"The interface is at {demo.local_url} (Ctrl+C ends it).", flush=True)
        demo.block_thread()
    return demo.local_url, demo


def _picture(label: str, elem_id: str) -> gr.Image:
    """A square that shows one picture; without Gradio's share button, which would send it to another host."""
    options = {"height": 232, "min_width": 140, "format": "png", "interactive": False, "buttons": ["fullscreen"]}
    return gr.Image(label=label, elem_id=elem_id, elem_classes="square", alt_text=label, **options)


def _upload_box() -> gr.Image:
    """Where a patch is dropped, chosen or pasted."""
    return gr.Image(
        label=f"Patch of {quality.PATCH}×{quality.PATCH} pixels",
        placeholder="Drop, choose or paste a patch",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=320,
        buttons=[],
        elem_id="patch",
        alt_text="The file as given, if a browser can show it",
    )


def _offer(examples: list[tuple[str, np.ndarray]], box: gr.Image) -> None:
    """Thumbnails that fill the box when clicked. Gradio copies the files when the page is built, so ours need not stay."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, patch in examples:
            files.append([str(Path(folder) / f"{name}.png")])
            Image.fromarray(patch).save(files[-1][0])
        if files:
            gr.Examples(files, box, label="Synthetic examples (drawn, not tissue)", elem_id="examples")


def _bind(host: str, port: int) -> int:
    """Listen for a moment; the port's number. OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
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
