"""Chats as the text that a model reads: the template of its tokenizer_config.json, or a plain one."""

import json
import sys
import time
from datetime import datetime
from pathlib import Path

import jinja2
from jinja2.compiler import CodeGenerator
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


def _size(value):
    return len(value) if isinstance(value, str | bytes | list | tuple) else 1


def _need(good):
    """SecurityError for an operation that would make too much."""
    if not good:
        raise SecurityError("an operation that makes too much")


class _Generator(CodeGenerator):
    """Writes ``a ~ b`` as a call that can be limited."""

    def visit_Concat(self, node, frame):
        self.write("environment.joined((")
        for one in node.nodes:
            self.visit(one, frame)
            self.write(", ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, and no operation that makes large values out of small ones."""

    intercepted_binops = frozenset(("*", "**", "%", "+"))
    code_generator_class = _Generator

    def call_binop(self, context, operator, left, right):
        sequences = [isinstance(one, str | bytes | list | tuple) for one in (left, right)]
        numbers = [abs(one) if isinstance(one, int | float) else 1 for one in (left, right)]
        if operator == "*" and any(sequences):
            _need(_size(left) * _size(right) * max(numbers) <= MOST_SIZE)
        elif operator == "+" and any(sequences):
            _need(_size(left) + _size(right) <= MOST_SIZE)
        elif operator == "**":
            _need(max(numbers) <= 1 << 16 and numbers[1] <= 64)
        elif operator == "%":
            _need(not isinstance(left, str | bytes))  # a format makes as much as its numbers say
        return super().call_binop(context, operator, left, right)

    def joined(self, values):
        """What ``~`` makes of values (str)."""
        texts = [str(value) for value in values]
        _need(sum(map(len, texts)) <= MOST_SIZE)
        return "".join(texts)

    def call(self, context, function, *arguments, **options):
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", None)
        if isinstance(owner, str) and name == "replace":
            return limited_replace(owner, *arguments, **options)
        if isinstance(owner, str) and name == "join":
            return limited_join(*arguments, owner)
        return super().call(context, function, *arguments, **options)

    def wrap_str_format(self, value):
        _need(super().wrap_str_format(value) is None)  # the same for str.format, which the sandbox would allow
        return None

    def is_safe_attribute(self, obj, attribute, value):
        # They make as much as a number in their text says.
        padding = ("center", "ljust", "rjust", "zfill", "expandtabs", "translate")
        safe = super().is_safe_attribute(obj, attribute, value)
        return safe and not (isinstance(obj, str | bytes) and attribute in padding)


def limited_replace(text, old, new, count=-1):
    """``text.replace``, unless it makes too much."""
    text, old, new = str(text), str(old), str(new)
    count = -1 if count is None else count
    _need(len(text) + (text.count(old) if count < 0 else min(count, text.count(old))) * len(new) <= MOST_SIZE)
    return text.replace(old, new, count)


def limited_join(values, between="", attribute=None):
    """Texts of values with ``between`` in between, unless they make too much."""
    texts = [str(value if attribute is None else value[attribute]) for value in values]
    _need(sum(map(len, texts)) + len(texts) * len(between) <= MOST_SIZE)
    return between.join(texts)


def _raise(message):
    raise jinja2.TemplateError(f"{message}")


def _environment():
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals |= {"raise_exception": _raise,
                            "strftime_now": lambda form: datetime.now().strftime(form[:99])}
    del environment.globals["lipsum"]
    environment.filters |= {"tojson": strictly_json, "replace": limited_replace, "join": limited_join}
    for name in ("center", "indent", "wordwrap", "format", "xmlattr", "urlize", "pprint", "random", "filesizeformat"):
        environment.filters.pop(name, None)
    return environment


def strictly_json(value, indent=None, ensure_ascii=False):
    """A value as JSON, without the escapes that HTML would need."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent if indent is None else min(8, int(indent)))


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
