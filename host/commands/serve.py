"""sterna serve: a model behind HTTP, as OpenAI's API has it, and a page to chat with it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.commands.options import Baud, Build, ModelOption, Threads, check_threads, use_build
from sterna.host.console import show, tell
from sterna.host.errors import UsageError
from sterna.host.runtime.open import DEFAULT_DEVICE
from sterna.sim.golden.extras import install_hint

PACKAGES = ("starlette", "uvicorn", "httptools", "pydantic", "prometheus_client", "jinja2")


def check_packages():
    """UsageError if what the server needs is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)}: not installed: run {install_hint('serve')}")


def serve(
    model: ModelOption = None,
    device: Annotated[list[str], typer.Option("--device", help="As of generate; given several times: requests go to "
                                              "whichever is free.",
                                              )] = [DEFAULT_DEVICE],  # noqa: B006 (typer copies it)
    host: Annotated[str, typer.Option("--host", help="Address to listen at; one that others reach needs a "
                                      "key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="TCP port; 0: a free one, which is printed.")] = 8000,
    key: Annotated[str, typer.Option("--api-key", envvar="STERNA_API_KEY", show_envvar=False, show_default=False,
                                     help="Key that requests must bring. Better in the variable STERNA_API_KEY, as "
                                     "others on this machine see the arguments of a program.")] = None,
    allowed: Annotated[list[str], typer.Option("--allow-host", metavar="NAME", show_default=False,
                                               help="Another name that requests may call this machine by, of a proxy "
                                               "for instance.")] = [],  # noqa: B006 (typer copies it)
    template: Annotated[Path, typer.Option("--chat-template", show_default=False,
                                           help="File with the chat template: tokenizer_config.json, or Jinja. "
                                           "Default: that of the model's folder, or a plain one.")] = None,
    context: Annotated[int, typer.Option("-c", "--ctx-size", help="Most tokens of a prompt and its answer.")] = 4096,
    queue: Annotated[int, typer.Option("--queue", help="Requests that may wait for a device; further ones get status "
                                       "429.")] = 256,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that an answer may take, its wait "
                                           "included.")] = 600.0,
    body: Annotated[int, typer.Option("--max-body", help="Most bytes of a request's body.")] = 1 << 20,
    connections: Annotated[int, typer.Option("--max-connections", help="Most connections at a time.")] = 1000,
    drain: Annotated[float, typer.Option("--drain", help="Seconds that running answers have to end when the server "
                                         "ends; a second Ctrl-C ends them at once.")] = 10.0,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Texts of requests and answers in the "
                                              "log.")] = False,
    cache: Annotated[int, typer.Option("--state-cache", help="MB of states kept, so that the next turn of a chat "
                                       "reads its new text alone.")] = 64,
    cache_folder: Annotated[Path, typer.Option("--state-cache-dir", help="Folder in which states are kept too.",
                                               show_default=False)] = None,
    threads: Threads = None,
    baud: Baud = 1_000_000,
    build: Build = None,
):
    """Serve a model to OpenAI clients and to a chat page.

    The URL goes to standard output, then a line for each request to standard error; Ctrl-C ends it. The page is at
    the URL, OpenAI's API at /v1, health and figures at /health and /metrics.

    Examples:

    sterna serve -m story.sterna

    sterna serve -m story.sterna --device cpu --device /dev/ttyUSB0 --port 8080

    STERNA_API_KEY=... sterna serve -m story.sterna --host 0.0.0.0
    """
    if model is None:
        raise UsageError("no model: give one with -m")
    check_packages()
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port {port}: use 1 to 65535, or 0 for a free one")
    if queue < 1:
        raise UsageError(f"--queue {queue}: use 1 or more")
    if cache < 0:
        raise UsageError(f"--state-cache {cache}: use 0 (off) or more")
    check_threads(threads, "cpu" if "cpu" in device else device[0])
    use_build(build)
    from sterna import load
    from sterna.host.server.app import App
    from sterna.host.server.run import listening, url_of
    from sterna.host.server.run import serve as run
    from sterna.host.server.settings import Settings
    from sterna.host.server.templates import of_model
    settings = Settings(host=host, api_key=key, hosts=tuple(name.lower() for name in allowed), context=context,
                        request_s=timeout, body_bytes=body, connections=connections, drain_s=drain,
                        log_prompts=log_prompts)
    chat = of_model(model, template)
    listener = listening(host, port)  # better known now than when the model is loaded
    with listener, load(model, device, threads=threads, baud=baud, queue=queue, state_cache_bytes=cache << 20,
                        state_cache_dir=cache_folder) as engine:
        app = App(engine, settings, chat)
        show(f"{url_of(listener)}\n")
        for one in engine.devices:
            tell(f"{one.name}: {one.label}")
        tell(f"chat template: {chat.name}; Ctrl-C ends the server")
        run(app, settings, listener)
    tell("the server has ended")
