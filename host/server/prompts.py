"""Prompts of requests as token ids: control tokens come from the template or as ids, never out of a client's text."""

from sterna.host.errors import HostError
from sterna.host.server import errors
from sterna.host.server.errors import ApiError, refuse

CHARACTERS = 64  # of a chat's text for each token of the context, at most


class Prompts:
    """Makes ids of texts and chats.

    Parameters
    ----------
    model : Model
    template : ChatTemplate
    context : int
        Most tokens of a prompt and its answer.
    """

    def __init__(self, model, template, context):
        self.vocabulary, self.template, self.context = model.vocabulary, template, context
        vocabulary = self.vocabulary
        added = {k: text for k in (*model.ends, *vocabulary.start)
                 if (text := vocabulary.tokenizer.get_added_tokens_decoder().get(k))}
        self._controls = vocabulary.controls | {k: token.content for k, token in added.items()}

    def text(self, text, param, *, start=True, special=False):
        """Ids (list of int) of a text.

        Parameters
        ----------
        text : str
        param : str
            What it came in, for errors.
        start : bool
            Put the start mark in front.
        special : bool
            Control tokens may stand in it.

        Raises
        ------
        ApiError
            The model has no tokens for it, or it holds a control token.
        """
        try:
            ids = self.vocabulary.encode(text, start=start)
        except HostError as error:
            raise errors.of(error, param) from None
        if not special:
            self._check(ids[len(self.vocabulary.start) if start else 0:], param)
        return ids

    def _check(self, ids, param):
        found = next((k for k in ids if k in self._controls), None)
        if found is not None:
            raise refuse(param, f"Invalid '{param}': the text holds the control token {self._controls[found]!r}: "
                                "leave it out, or send the prompt as token ids to /v1/completions (/tokenize makes "
                                "them, with parse_special).", "control_token")

    def chat(self, messages):
        """Ids (list of int) of a chat (list of Message), up to where the answer begins; ApiError."""
        for place, message in enumerate(messages):
            for name in ("content", "name"):
                if text := getattr(message, name):
                    self.text(text, f"messages[{place}].{name}")
        said = [message.model_dump(include={"role", "content", "name"}, exclude_none=True) for message in messages]
        text = self.template.render(said, self.context * CHARACTERS)
        ids, start = self.text(text, "messages", special=True), self.vocabulary.start
        # Templates write the start mark themselves, as a rule.
        return ids[len(start):] if ids[len(start):2 * len(start)] == start else ids

    def room(self, ids, most, param):
        """Tokens that may be made (int) behind ``ids``: ``most``, or all that fit if it is None; ApiError."""
        left = self.context - len(ids)
        if left < (most or 1):
            asked = f"you requested {len(ids) + most} tokens ({len(ids)} in the {param}, {most} in the completion)" \
                if most else f"your {param} resulted in {len(ids)} tokens"
            raise ApiError(400, f"This model's maximum context length is {self.context} tokens. However, {asked}. "
                                f"Please reduce the length of the {param} or completion.",
                           "context_length_exceeded", param)
        return left if most is None else most

    def spelled(self, ids):
        """The text (str) of ids; ApiError for one that the model does not have."""
        size = self.vocabulary.size
        bad = next((k for k in ids if not 0 <= k < size), None)
        if bad is not None:
            raise refuse("tokens", f"Invalid 'tokens': token {bad} is not among the model's {size}.")
        return b"".join(map(self.vocabulary.token_bytes, ids)).decode(errors="replace")
