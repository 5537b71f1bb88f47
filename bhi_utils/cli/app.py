"""``bhi app``: the interface in a browser, with a trained model."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from bhi_utils.cli.options import Model, bundle
from bhi_utils.core.paths import cache_dir


def app(
    model: Model = None,
    host: Annotated[str, Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, Option(help="port to listen on, 0 for any free one")] = 7860,
    data: Annotated[str | None, Option(metavar="SOURCE", help="the archive whose cases can be looked at (some synthetic ones)")] = None,
    share: Annotated[bool, Option("--share", help="make it public through Gradio's servers")] = False,
    allowed_host: Annotated[
        list[str] | None, Option(metavar="NAME", help="a name of a proxy or page that shows the app; may repeat")
    ] = None,
    certfile: Annotated[Path | None, Option(metavar="PEM", help="serve over https with this certificate chain")] = None,
    keyfile: Annotated[Path | None, Option(metavar="PEM", help="its private key, unless the certificate's file holds it")] = None,
    no_password: Annotated[bool, Option("--no-password", help="let anybody in from beyond this machine, without BHI_PASSWORD")] = False,
) -> None:
    """Classify patches in the browser."""
    from bhi_utils.app import start_options

    start: dict[str, Any] = {"host": host, "port": port, "share": share, "certfile": certfile, "keyfile": keyfile}
    start |= {"allowed_hosts": allowed_host or (), "no_password": no_password}
    start_options.check(**start)
    start_options.stop_by_signal()
    from bhi_utils.data import archive

    source = archive.find_source(data, cache=cache_dir()) if data else None
    trained = bundle(model)
    from bhi_utils.app import server
    from bhi_utils.model.predictor import Predictor

    if source:
        pack = archive.pack(source, cache_dir())
        start["cases"] = lambda: pack
    server.launch(Predictor.load(trained), block=True, **start)
