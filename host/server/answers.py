"""Answers of the model as OpenAI's API writes them: whole, or as server-sent events while they are made."""

import asyncio
import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field

from sterna.host.serving.generation import CANCELLED
from sterna.host.server import errors
from sterna.host.server.errors import ApiError, to_json
from sterna.hw.protocol import VERSIONS

FINGERPRINT = f"sterna_numerics_{VERSIONS['numerics']}"
SHORT_S = 0.002  # a pause that is not worth it
STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


@dataclass(frozen=True)
class Form:
    """How an endpoint writes its answers.

    Attributes
    ----------
    prefix : str
        Of the ids of answers.
    whole, part : str
        The field ``object`` of a whole answer, and of a part of one.
    chat : bool
        Messages instead of texts.
    """

    prefix: str
    whole: str
    part: str
    chat: bool

    def choice(self, index, text, reason):
        """A whole choice (dict)."""
        said = {"message": {"role": "assistant", "content": text, "refusal": None, "annotations": []}} if self.chat \
            else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def piece(self, index, text, reason=None):
        """A part of a choice (dict); None: what a chat begins with."""
        if not self.chat:
            return {"index": index, "text": text or "", "logprobs": None, "finish_reason": reason}
        delta = {"role": "assistant", "content": "", "refusal": None} if text is None else \
            {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


COMPLETION = Form("cmpl", "text_completion", "text_completion", False)
CHAT = Form("chatcmpl", "chat.completion", "chat.completion.chunk", True)


def usage_of(generations, answers):
    """The usage (dict) of several generations, ``answers`` for each prompt, which counts once."""
    usages = [generation.usage for generation in generations]
    prompts = sum(usage.prompt_tokens for usage in usages[::answers])
    cached = sum(usage.cached_tokens for usage in usages[::answers])
    made = sum(usage.completion_tokens for usage in usages)
    return {"prompt_tokens": prompts, "completion_tokens": made, "total_tokens": prompts + made,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                          "rejected_prediction_tokens": 0}}


async def _awaited(generation):
    await generation


@dataclass(eq=False)
class Answer:
    """The answer to one request.

    Attributes
    ----------
    generations : list of Generation
        All choices of the first prompt, those of the second one, and so on.
    form : Form
    model : str
    answers : int
        Choices of each prompt.
    echoes : list of str
        What stands in front of each choice: the prompt, if it is wanted.
    with_usage : bool
        A stream tells its usage.
    """

    generations: list
    form: Form
    model: str
    answers: int
    echoes: list
    with_usage: bool = False
    ended_by: ApiError | None = None
    id: str = field(init=False)

    def __post_init__(self):
        self.id, self.created = f"{self.form.prefix}-{secrets.token_hex(12)}", int(time.time())

    def cancel(self, error=None):
        """End all texts within a token; ``error`` is what the client is told."""
        self.ended_by = self.ended_by or error
        for generation in self.generations:
            generation.cancel()

    async def settled(self, most_s):
        """Returns when all texts have come to their end, or after ``most_s`` seconds."""
        with suppress(Exception):  # of the engine, which whoever reads the texts is told about
            await asyncio.wait_for(asyncio.gather(*map(_awaited, self.generations), return_exceptions=True), most_s)

    def _head(self, kind):
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model,
                "system_fingerprint": FINGERPRINT}

    async def whole(self):
        """The whole answer (dict); ApiError if it was ended, and what the engine raises."""
        texts = await asyncio.gather(*self.generations)
        self._check()
        choices = [self.form.choice(index, self.echoes[index] + text, self.generations[index].finish_reason)
                   for index, text in enumerate(texts)]
        return self._head(self.form.whole) | {"choices": choices,
                                              "usage": usage_of(self.generations, self.answers)}

    def _check(self):
        if any(generation.finish_reason == CANCELLED for generation in self.generations):
            raise self.ended_by or errors.unavailable("the answer was ended")

    async def events(self, send, apart_s=lambda: 0.0):
        """Sends the answer as events while it is made; raises as ``whole``.

        Parameters
        ----------
        send : callable(bytes)
            Awaited.
        apart_s : callable() -> float
            Seconds that events of one text are apart at least; what comes meanwhile goes together.
        """
        head = json.dumps(self._head(self.form.part), separators=(",", ":"))[:-1]
        tail = b',"usage":null}\n\n' if self.with_usage else b"}\n\n"

        def event(choice):
            return b"".join((start, to_json(choice), b"]", tail))

        start = f'data: {head},"choices":['.encode()
        await asyncio.gather(*(self._events(index, generation, event, send, apart_s)
                               for index, generation in enumerate(self.generations)))
        self._check()
        if self.with_usage:
            usage = to_json(usage_of(self.generations, self.answers))
            await send(b"".join((start, b'],"usage":', usage, b"}\n\n")))
        await send(b"data: [DONE]\n\n")

    async def _events(self, index, generation, event, send, apart_s):
        form, echo = self.form, self.echoes[index]
        if form.chat or echo:
            await send(event(form.piece(index, None if form.chat else echo)))
        async for piece in generation:
            await send(event(form.piece(index, piece)))
            if (pause_s := apart_s()) > SHORT_S:
                await asyncio.sleep(pause_s)
        if generation.finish_reason != CANCELLED:
            await send(event(form.piece(index, "", generation.finish_reason)))
