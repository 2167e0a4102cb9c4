"""What is told about requests: a line in the log for each, and figures for Prometheus."""

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(eq=False)
class Visit:
    """One request.

    Attributes
    ----------
    client, method, path : str
    endpoint : str
        The route, "other" without one, "none" for what is no request: there are few of them.
    status : int
        Of HTTP; 0 until the answer begins, 499 if the client had gone by then.
    answer : Answer or None
    gone : bool
        The client went away before its answer had ended.
    prompts : list of str or None
        What was asked, if that is to be in the log.
    """

    client: str
    method: str
    path: str
    endpoint: str = "other"
    status: int = 0
    answer: object = None
    gone: bool = False
    prompts: list | None = None
    problem: str = ""
    began: float = field(default_factory=time.monotonic)

    def line(self):
        """The line of the log (str); without texts, unless these are wanted."""
        words = [time.strftime("%Y-%m-%dT%H:%M:%S"), self.client, self.method, shown(self.path), str(self.status)]
        if self.answer:
            usages = [generation.usage for generation in self.answer.generations]
            first = [usage.first_token_s for usage in usages if usage.first_token_s is not None]
            ends = sorted({str(generation.finish_reason) for generation in self.answer.generations})
            words += [f"id={self.answer.id}", f"prompt={sum(usage.prompt_tokens for usage in usages)}",
                      f"cached={sum(usage.cached_tokens for usage in usages)}",
                      f"made={sum(usage.completion_tokens for usage in usages)}", f"end={','.join(ends)}",
                      f"queued={max(usage.queued_s for usage in usages):.3f}s"]
            words += [f"first={min(first):.3f}s"] if first else []
        words.append(f"total={time.monotonic() - self.began:.3f}s")
        words += ["client=gone"] if self.gone else []
        words += [f"error={shown(self.problem)}"] if self.problem else []
        if self.prompts is not None:
            texts = [generation.text for generation in self.answer.generations] if self.answer else []
            words.append("texts=" + json.dumps({"prompts": self.prompts, "answers": texts}))
        return " ".join(words)


def shown(text):
    """A text of a client's in the log: one word, without what a terminal would take for commands."""
    text = text if len(text) <= 200 else f"{text[:197]}..."
    return text if text.isascii() and text.isprintable() and " " not in text else json.dumps(text)


class Figures:
    """Counts of a server, and of its engine when they are asked for.

    Parameters
    ----------
    engine : Engine
    log : file
        Where the lines go.
    """

    def __init__(self, engine, log=None):
        self._engine, self._log, self.registry = engine, log or sys.stderr, CollectorRegistry()
        known = {"registry": self.registry}
        self._requests = Counter("sterna_requests", "Requests", ["endpoint", "status"], **known)
        self._prompt = Counter("sterna_prompt_tokens", "Tokens of prompts", **known)
        self._cached = Counter("sterna_cached_tokens", "Tokens of prompts that were not read again", **known)
        self._made = Counter("sterna_completion_tokens", "Tokens made", **known)
        self._gone = Counter("sterna_clients_gone", "Clients that went away before their answer had ended", **known)
        self._open = Gauge("sterna_requests_open", "Requests that are being answered", **known)
        self._first = Histogram("sterna_first_token_seconds", "From a request to its first token", buckets=SECONDS,
                                **known)
        self._total = Histogram("sterna_request_seconds", "From a request to the end of its answer", ["endpoint"],
                                buckets=SECONDS, **known)
        self.registry.register(self)

    def collect(self):
        """The engine's figures, as prometheus-client asks for them."""
        yield GaugeMetricFamily("sterna_waiting", "Texts that no device has begun with", value=self._engine.waiting)
        for name, words in (("alive", "Whether the device answers"), ("slots", "Texts that it makes side by side"),
                            ("running", "Texts that it makes now"), ("tokens", "Tokens that it has made")):
            family = GaugeMetricFamily(f"sterna_device_{name}", words, labels=["device", "number"])
            for number, device in enumerate(self._engine.devices):
                family.add_metric([device.name, str(number)], float(getattr(device, name)))
            yield family

    def begun(self):
        self._open.inc()

    def never_seen(self, visit):
        """Counts a Visit that came to its end before the application saw it, and writes its line."""
        visit.endpoint = "none"
        self._requests.labels(visit.endpoint, str(visit.status)).inc()
        self.note(visit.line())

    def ended(self, visit):
        """Counts a Visit that had begun, and writes its line."""
        self._open.dec()
        self._requests.labels(visit.endpoint, str(visit.status)).inc()
        self._total.labels(visit.endpoint).observe(time.monotonic() - visit.began)
        self._gone.inc(visit.gone)
        for generation in visit.answer.generations if visit.answer else ():
            usage = generation.usage
            self._prompt.inc(usage.prompt_tokens)
            self._cached.inc(usage.cached_tokens)
            self._made.inc(usage.completion_tokens)
            if usage.first_token_s is not None:
                self._first.observe(usage.first_token_s)
        self.note(visit.line())

    def note(self, text):
        """Writes to the log; one that is no longer there stops no answer."""
        with suppress(OSError, ValueError):
            print(text, file=self._log, flush=True)

    def text(self):
        """All figures as Prometheus reads them (bytes)."""
        return generate_latest(self.registry)
