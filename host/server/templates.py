"""Chats as the text that a model reads: the template of its tokenizer_config.json, or a plain one."""

import sys
import time
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from sterna.host.errors import HostError
from sterna.host.server.errors import ApiError, refuse
from sterna.sim.golden import strictjson

TEMPLATE_BYTES = 1 << 20  # of a file with a template
RENDER_S = 2.0  # seconds that a template may take
MOST_SIZE = 1 << 20  # of what one operation of a template makes
# For a model that was trained on texts alone: an answer goes on with what was said, which stands line by line.
PLAIN = """{%- for message in messages -%}
{%- if not loop.first and message.role != 'assistant' -%}{{ '\\n' }}{%- endif -%}
{{ message.content }}
{%- endfor -%}"""
TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class TemplateError(HostError):
    """A chat template that cannot be used."""


class _TooLong(Exception):
    """A template that makes too much, or takes too long."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, and no operation that makes large values out of small ones."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def call_binop(self, context, operator, left, right):
        sizes = [len(one) if isinstance(one, str | bytes | list | tuple) else 1 for one in (left, right)]
        numbers = [abs(one) if isinstance(one, int | float) else 1 for one in (left, right)]
        if operator == "*" and sizes[0] * sizes[1] * max(numbers) > MOST_SIZE and max(sizes) > 1:
            raise SecurityError("a repetition that is too long")
        if operator == "**" and (max(numbers) > 1 << 16 or numbers[1] > 64):
            raise SecurityError("a power that is too large")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("a format")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj, attribute, value):
        # They make as much as a number in their text says.
        padding = ("format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs")
        safe = super().is_safe_attribute(obj, attribute, value)
        return safe and not (isinstance(obj, str) and attribute in padding)


def _raise(message):
    raise jinja2.TemplateError(f"{message}")


def _environment():
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = strictly_json
    for name in ("center", "indent", "wordwrap", "format", "xmlattr", "urlize", "pprint", "random", "filesizeformat"):
        environment.filters.pop(name, None)
    return environment


def strictly_json(value, indent=None):
    """A value as JSON, without the escapes that HTML would need."""
    import json
    return json.dumps(value, ensure_ascii=False, indent=indent if indent is None else min(8, int(indent)))


class ChatTemplate:
    """How the messages of a chat become one text.

    Parameters
    ----------
    source : str
        In Jinja, as transformers has it.
    tokens : dict of str to str
        The texts of the special tokens, by their names there (``bos_token``).
    name : str
        Where it is from, for people.

    Raises
    ------
    TemplateError
        It is no template.
    """

    def __init__(self, source, tokens=None, name="plain"):
        self.source, self.name, self._tokens = source, name, tokens or {}
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
            raise TemplateError(f"{name}: the chat template cannot be read: {' '.join(str(error).split())[:200]}") \
                from None

    def render(self, messages, most):
        """The text (str) of a chat, up to where the answer begins.

        Parameters
        ----------
        messages : list of dict
            With role and content, str.
        most : int
            Characters that the text may have.

        Raises
        ------
        ApiError
            The template refuses the chat, or fails, or makes too much, or takes too long.
        """
        try:
            with _limited(time.monotonic() + RENDER_S):
                out, size = [], 0
                for piece in self._template.generate(messages=messages, add_generation_prompt=True, tools=None,
                                                     documents=None, **self._tokens):
                    size += len(piece)
                    if size > most:
                        raise _TooLong(f"its text has more than {most} characters")
                    out.append(piece)
                return "".join(out)
        except _TooLong as error:
            raise refuse("messages", f"the chat template gave up: {error}: shorten the messages",
                         "context_length_exceeded") from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError,
                RecursionError, MemoryError) as error:
            raise ApiError(400, f"the chat template refuses these messages: {' '.join(str(error).split())[:200]}",
                           "invalid_value", "messages") from None


class _limited:
    """A block that raises _TooLong at a deadline, between two lines of Python: a template is compiled to such."""

    def __init__(self, deadline):
        self._deadline = deadline

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._traced)

    def __exit__(self, *_):
        sys.settrace(self._before)

    def _traced(self, frame, event, argument):
        if time.monotonic() > self._deadline:
            raise _TooLong(f"it took longer than {RENDER_S:g} s")
        return self._traced


def of_model(path, given=None):
    """The ChatTemplate of a model.

    Parameters
    ----------
    path : Path
        Of the model: a checkpoint folder may hold chat_template.jinja or tokenizer_config.json.
    given : Path, optional
        A file of either kind, or a folder that holds one, to be used instead.

    Raises
    ------
    TemplateError
        A file that is there cannot be read, or one that was given holds no template.
    """
    source = Path(given or path)
    folder = source if source.is_dir() else source.parent if given else None
    if folder is None:
        return ChatTemplate(PLAIN)
    configuration = source if source.suffix == ".json" else folder / "tokenizer_config.json"
    raw = _configuration(configuration) if configuration.exists() or configuration == source else {}
    tokens = {name: text for name in TOKENS if (text := _text_of(raw.get(name))) is not None}
    file = folder / "chat_template.jinja" if source.is_dir() else source
    if file != configuration and (file.exists() or not source.is_dir()):
        return ChatTemplate(_read(file), tokens, str(file))
    template = _named(raw.get("chat_template"))
    if isinstance(template, str):
        return ChatTemplate(template, tokens, str(configuration))
    if given:
        raise TemplateError(f"--chat-template {given}: there is no chat template: give a tokenizer_config.json that "
                            "has one, or a file in Jinja")
    return ChatTemplate(PLAIN)


def _named(template):
    """The template called default where a configuration has several."""
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        return named.get("default")
    return template


def _text_of(token):
    """The text of a token, which may stand in an object."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _read(path):
    try:
        return strictjson.read_bytes(path, TEMPLATE_BYTES).decode()
    except (OSError, ValueError) as error:
        raise TemplateError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _configuration(path):
    try:
        raw = strictjson.read(path, TEMPLATE_BYTES)
    except (OSError, strictjson.JsonError) as error:
        raise TemplateError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    return raw if isinstance(raw, dict) else {}
