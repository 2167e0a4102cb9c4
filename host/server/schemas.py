"""The bodies of requests: their parameters, defaults and ranges as OpenAI's API has them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from sterna.host.runtime.sampling import SEEDS
from sterna.host.server.errors import ApiError, refuse, unsupported

MOST_STOPS = 4
WORDS = {"str": "a string", "int": "an integer", "float": "a decimal", "bool": "a boolean", "list": "an array",
         "dict": "an object", "NoneType": "null"}
# Types of pydantic's errors: what OpenAI says was expected.
EXPECTED = {"string_type": "a string", "int_type": "an integer", "int_from_float": "an integer",
            "float_type": "a decimal", "bool_type": "a boolean", "list_type": "an array", "dict_type": "an object",
            "model_type": "an object", "model_attributes_type": "an object", "int_parsing_size": "an integer"}
LIMITS = {"less_than_equal": ("above maximum value", "<=", "le", "above_max_value"),
          "greater_than_equal": ("below minimum value", ">=", "ge", "below_min_value")}
# Parameters of OpenAI's that no device has, and what they may be: as good as not given.
NEUTRAL = {"logprobs": (None, False), "top_logprobs": (None,), "frequency_penalty": (None, 0),
           "presence_penalty": (None, 0), "logit_bias": (None, {}), "best_of": (None, 1), "suffix": (None, ""),
           "tools": (None, []), "tool_choice": (None, "none", "auto"), "parallel_tool_calls": (None, True, False),
           "functions": (None, []), "function_call": (None, "none", "auto"), "audio": (None,),
           "modalities": (None, ["text"]), "prediction": (None,), "web_search_options": (None,),
           "response_format": (None, {"type": "text"}), "reasoning_effort": (None, "none"), "verbosity": (None,),
           "store": (None, False), "service_tier": (None, "auto", "default"), "moderation": (None,),
           "prompt_cache_options": (None,)}
# Parameters that say nothing about the answer.
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
Ids = list[Annotated[int, Field(ge=0)]]
Decimal = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    """Whatever has a model: unknown parameters are refused, and types are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


def _stops(value):
    """Stop strings as a list."""
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise PydanticCustomError("form", "expected a string or an array of strings")
    if len(value) > MOST_STOPS:
        raise PydanticCustomError("long", f"expected at most {MOST_STOPS} sequences, but got {len(value)}")
    if "" in value:
        raise PydanticCustomError("empty", "an empty sequence would end every answer")
    return value


class Sampled(Body):
    """What completions and chat completions have in common."""

    temperature: Annotated[Decimal, Field(ge=0, le=2)] | None = 1.0
    top_p: Annotated[Decimal, Field(ge=0, le=1)] | None = 1.0
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: Annotated[list[str], BeforeValidator(_stops)] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 16)] | None = 0
    ignore_eos: bool | None = False

    @field_validator("stop", mode="after")
    @classmethod
    def _no_empty(cls, value):
        if "" in value:
            raise PydanticCustomError("empty", "an empty sequence would end every answer")
        return value

    def sampling(self, choice):
        """Keyword arguments of ``Engine.generate`` for the answer number ``choice`` of several (dict)."""
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        if top_p == 0:  # the best token alone
            temperature, top_p = 0.0, 1.0
        if 0 < temperature < 1e-3:
            raise refuse("temperature", f"Invalid 'temperature': the hardware takes 0 (the best token) or at least "
                                        f"0.001, but got {temperature:g} instead.")
        return {"temperature": temperature, "top_p": top_p, "top_k": self.top_k or 0, "stop": tuple(self.stop),
                "seed": None if self.seed is None else (self.seed + choice) % SEEDS,
                "ignore_end": bool(self.ignore_eos)}

    @property
    def answers(self):
        """How many answers each prompt gets (int)."""
        return self.n or 1

    @property
    def usage_wanted(self):
        """Whether a stream tells the usage at its end (bool)."""
        return bool(self.stream_options and self.stream_options.include_usage)


def _prompts(value):
    """A prompt, or several, as a list of texts, lists of ids, or None for the start of a text."""
    if value is None:
        return [None]
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(one, str) for one in value):
            return value
        if all(type(one) is int for one in value):
            return [value]
        if all(isinstance(one, list) and one and all(type(k) is int for k in one) for one in value):
            return value
    raise PydanticCustomError("form", "expected a string, an array of strings, an array of tokens, or an array of "
                                      "arrays of tokens, none of them empty")


class Completion(Sampled):
    """The body of /v1/completions."""

    prompt: Annotated[Any, BeforeValidator(_prompts)] = [None]
    max_tokens: Annotated[int, Field(ge=1)] | None = 16
    echo: bool | None = False

    @property
    def most(self):
        """Tokens to make at most (int)."""
        return 16 if self.max_tokens is None else self.max_tokens


def _content(value):
    """A content as text: a string, null, or an array of parts of type text."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise PydanticCustomError("form", "expected a string or an array of parts")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise PydanticCustomError("part", "this model reads text alone: each part must be an object with the "
                                              "type 'text' and a text")
    return "".join(part["text"] for part in value)


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["developer", "system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content), Field(validate_default=True)] = None
    name: str | None = None
    refusal: str | None = None  # what a client sends back of an answer
    annotations: list | None = None
    audio: None = None
    tool_calls: Annotated[list, Field(max_length=0)] | None = None
    function_call: None = None

    @field_validator("content", mode="wrap")
    @classmethod
    def _only_an_answer_may_say_nothing(cls, value, handler, info):
        if value is None and info.data.get("role", "assistant") != "assistant":
            raise PydanticCustomError("null", "expected a string or an array of parts, but got null instead")
        return handler(value)


class Chat(Sampled):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def most(self):
        """Tokens to make at most (int), None: as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Tokenize(BaseModel):
    """The body of /tokenize: a text, or a chat as the model would read it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool = True
    parse_special: bool = False


class Detokenize(BaseModel):
    """The body of /detokenize."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    tokens: Ids


def parse(kind, data):
    """A body (one of the classes here) from bytes of JSON; ApiError for what is none."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        raise ApiError(400, "We could not parse the JSON body of your request: it must be a JSON object in UTF-8 "
                            f"({first['ctx']['error']}).")
    if issubclass(kind, Sampled) and first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        return _without_neutral(kind, data)
    raise _problem(first)


def _without_neutral(kind, data):
    """A body whose parameters beyond the known ones have no effect; ApiError otherwise."""
    from pydantic_core import from_json
    raw = from_json(data)
    for name in [name for name in raw if name not in kind.model_fields]:
        value = raw.pop(name)
        if name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise ApiError(400, f"Unknown parameter: '{shown(name)}'.", "unknown_parameter", shown(name))
        without = (*NEUTRAL[name], raw.get("n")) if name == "best_of" else NEUTRAL[name]  # the best n of n are all
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in without):
            raise unsupported(name)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _problem(error.errors(include_url=False)[0]) from None


def shown(name, most=64):
    """A name that a client gave, as a message shows it: one line (str) of about ``most`` characters."""
    name = name if len(name) <= most else f"{name[:most - 3]}..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def place(location):
    """The parameter at a location of pydantic's, as ``messages[0].content`` (str)."""
    out = ""
    for part in location:
        if isinstance(part, int):
            out += f"[{part}]"
        elif not part.startswith("function-"):  # the name of a check, not of a parameter
            out += f".{shown(part)}" if out else shown(part)
    return out


def _problem(first):
    """The ApiError of an error of pydantic's."""
    kind, name, value = first["type"], place(first["loc"]), first["input"]
    got = WORDS.get(type(value).__name__, "something else")
    if not name:
        return ApiError(400, f"We could not parse the JSON body of your request: expected an object, but got {got} "
                             "instead.")
    if kind == "missing":
        return refuse(name, f"Missing required parameter: '{name}'.", "missing_required_parameter")
    if kind == "extra_forbidden":
        return refuse(name, f"Unknown parameter: '{name}'.", "unknown_parameter")
    if kind in EXPECTED:
        return refuse(name, f"Invalid type for '{name}': expected {EXPECTED[kind]}, but got {got} instead.",
                      "invalid_type")
    if kind in LIMITS:
        words, sign, limit, code = LIMITS[kind]
        what = "integer" if isinstance(value, int) and not isinstance(first["ctx"][limit], float) else "decimal"
        number = f"{value}" if isinstance(value, float) or abs(value) < 1 << 64 else "a larger one"
        return refuse(name, f"Invalid '{name}': {what} {words}. Expected a value {sign} {first['ctx'][limit]:g}, but "
                            f"got {number} instead.", f"{what}_{code}")
    if kind == "too_short":
        return refuse(name, f"Invalid '{name}': empty array. Expected an array with minimum length "
                            f"{first['ctx']['min_length']}, but got an empty array instead.", "empty_array")
    if kind == "too_long" or kind == "none_required":
        return unsupported(name)
    if kind == "literal_error":
        return refuse(name, f"Invalid value: {got if not isinstance(value, str) else repr(shown(value))}. Supported "
                            f"values are: {first['ctx']['expected']}.")
    return refuse(name, f"Invalid '{name}': {first['msg']}.")
