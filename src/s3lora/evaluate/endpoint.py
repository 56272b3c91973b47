"""A model behind a server that speaks OpenAI's chat API: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from s3lora.errors import UsageError
from s3lora.evaluate.address import EndpointError
from s3lora.evaluate.answers.reasoning import REASONING_VERSION, read_answer, split_reasoning
from s3lora.evaluate.background import all_or_none, stream
from s3lora.evaluate.chat import Decoding, Generation, Prompt, digest_of
from s3lora.evaluate.chat_setup import NO_SETUP, ChatSetup, facts_of, system_in_user_turn
from s3lora.evaluate.message import ServedMessage, read_message
from s3lora.evaluate.results import ChatFacts
from s3lora.evaluate.server import RefusedError, Server

#: Seconds to wait for the list of models, and retries: it is good to have, no more.
LISTING, LISTING_RETRIES = 30.0, 2
#: How many models an error names.
NAMED = 8
#: Whether the server's template opens the reasoning, so that an answer which was cut off shows no mark of it, is seen
#: from an answer to this that may take so many tokens.
PROBE, PROBE_TOKENS = Prompt.ask("Say OK."), 1024
#: How servers say that a prompt is too long, and that the template takes no system prompt.
TOO_LONG = re.compile(
    r"context[ _-](?:length|size|window)|maximum (?:model |input |sequence )?length|max_(?:model_len|seq_len)|"
    r"(?:prompt|input|request)[\w ]* (?:is )?too (?:long|large)|too many (?:input |prompt )?tokens",
    re.IGNORECASE,
)
NO_SYSTEM = re.compile(r"system (?:role|message|prompt|instruction)|developer instruction", re.IGNORECASE)


class EndpointModel:
    """A chat model behind `{url}/chat/completions`; several requests are under way at once.

    Parameters:
        url: the server's address, with or without `/v1`.
        name: the model's name there.
        parallel: requests at a time.
        timeout: seconds for one try of a request, from connecting to the last byte.
        retries: further tries where the connection breaks, or the server answers 429, 500, 502, 503, 504 or nonsense;
            a request that times out is tried twice at most. Pauses double, and `Retry-After` is honoured.
        setup: what is put around every prompt: a system prompt, examples, arguments of the chat template.

    Answers come without the reasoning before them. A prompt that the server finds too long for the model's context gets
    an answer that is unknown.

    The key comes from S3LORA_API_KEY, else OPENAI_API_KEY. It is refused over plain http to another machine.

    The server sees temperature, seed, stop strings and the limit of tokens; what else shapes its answers is its own
    affair, as is whether the same request gets the same answer twice.

    Raises EndpointError where URL or key cannot be used, MissingPackageError without httpx.
    """

    backend = "OpenAI-compatible server"

    def __init__(
        self,
        url: str,
        name: str,
        *,
        parallel: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        setup: ChatSetup = NO_SETUP,
    ) -> None:
        """Check the settings; nothing is sent yet."""
        if parallel < 1 or retries < 0 or not 0 < timeout < float("inf"):
            raise UsageError("an endpoint needs at least one request at a time, no negative retries and a time limit")
        self.name = name
        self.parallel = parallel
        self.setup = setup
        self._notes: dict[str, None] = {}
        self._server = Server(url, name, timeout=timeout, retries=retries)
        self._limit = "max_tokens"
        self._takes_system = True
        self._opens: bool | None = None
        self._probing = asyncio.Lock()

    @property
    def url(self) -> str:
        """Return the address that `/chat/completions` is appended to."""
        return self._server.url

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the results must know, as far as it has turned out."""
        return tuple(self._notes)

    @property
    def chat(self) -> ChatFacts:
        """Return what is put around every prompt, for the record."""
        return facts_of(self.setup)

    @cached_property
    def identity(self) -> str:
        """Return a digest of host, path, model name, setup, and what the server tells about the model.

        The server is asked once. It can put other weights behind the same name, and need not tell: then the store must
        be cleared, or not be used.
        """
        [told] = stream(self._tell)
        parts = urlsplit(self.url)
        own = [self.setup.identity, REASONING_VERSION]
        return digest_of(["endpoint", parts.netloc, parts.path, self.name, told, own])

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Return one batch a prompt: what a server answers together is its own affair."""
        return [[i] for i in range(len(prompts))]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield the answers as they come; the first request that fails for good ends all others.

        `finished` is whether the server says that the model stopped. `tokens` is the server's count; one that gives
        none has its words counted instead, and `notes` says so.
        """
        order = [i for batch in (self.batches(prompts, decoding) if batches is None else batches) for i in batch]

        async def answer_all(emit: Callable[[tuple[int, Generation]], None]) -> None:
            self._probing = asyncio.Lock()
            todo = iter(order)

            async def work() -> None:
                for i in todo:
                    emit((i, await self._answer(client, prompts[i], decoding)))

            async with self._server.client(self.parallel) as client:
                await all_or_none([work() for _ in range(min(self.parallel, len(order)))])

        yield from stream(answer_all)

    async def _answer(self, client: Any, prompt: Prompt, decoding: Decoding) -> Generation:
        try:
            message, tokens, finished = await self._ask(client, self.setup.apply(prompt), decoding)
        except RefusedError as refused:
            if refused.status in (400, 413, 422) and TOO_LONG.search(refused.said):
                return Generation("", 0, False, unknown="prompt")
            raise
        if message.filtered:
            return Generation("", tokens, False, unknown="filtered")
        answer = read_answer(message.text, tokens, finished, apart=message.reasoned)
        if finished or answer.reasoned or answer.unknown:
            return answer
        async with self._probing:
            opened = await self._opens_reasoning(client)
        return read_answer(message.text, tokens, finished, opened=opened)

    async def _ask(self, client: Any, prompt: Prompt, decoding: Decoding) -> tuple[ServedMessage, int, bool]:
        """Return the message in the reply, its tokens, and whether the model ended it; the prompt is sent as it is."""
        limit, takes_system = self._limit, self._takes_system
        body: dict[str, Any] = {
            "model": self.name,
            "messages": (prompt if takes_system else system_in_user_turn(prompt)).as_dicts(),
            limit: decoding.max_new_tokens,
            "temperature": decoding.temperature,
        }
        if decoding.temperature > 0:
            # Servers may have defaults of their own; `seed` is not among the fields that all of them know.
            body |= {"top_p": 1.0, "seed": decoding.seed}
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        if self.setup.template_args:
            body["chat_template_kwargs"] = dict(self.setup.template_args)
        try:
            return await self._server.ask(client, "/chat/completions", body, lambda told: self._read(told, decoding))
        except RefusedError as refused:
            # OpenAI's newer models know the limit under its new name alone, and other servers under the old one alone.
            if refused.status in (400, 422) and "max_completion_tokens" in refused.said and limit == "max_tokens":
                self._limit = "max_completion_tokens"
                return await self._ask(client, prompt, decoding)
            system = takes_system and bool(prompt.messages) and prompt.messages[0].role == "system"
            if refused.status in (400, 422) and system and NO_SYSTEM.search(refused.said):
                self._takes_system = False
                self._notes["the server takes no system prompt: it is put at the beginning of the user's turn"] = None
                return await self._ask(client, prompt, decoding)
            if refused.status == 404:
                raise await self._unknown(client, refused) from None
            raise

    async def _opens_reasoning(self, client: Any) -> bool:
        """Tell whether answers begin inside the reasoning: a short one that is complete has only its closing tag."""
        if self._opens is None:
            decoding = Decoding(max_new_tokens=PROBE_TOKENS)
            try:
                message, _, finished = await self._ask(client, self.setup.apply(PROBE), decoding)
            except EndpointError:
                message, finished = ServedMessage("", False), True
            said = split_reasoning(message.text)
            self._opens = said.reasoned and not said.open and not message.reasoned and finished
        return self._opens

    def _read(self, told: Any, decoding: Decoding) -> tuple[ServedMessage, int, bool]:
        """Return the message in a reply, its tokens, and whether the model ended it; raise ValueError without one."""
        if isinstance(told, dict) and told.get("error"):
            raise ValueError(f"an error in place of an answer: {told['error']}")
        try:
            choice = told["choices"][0]
            message, reason = read_message(choice["message"]), choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            raise ValueError("no choices") from None
        text = self._server.hide(message.text)
        usage = told.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if type(tokens) is not int or tokens < 0:
            tokens = len(text.split())
            self._notes["the server does not tell how many tokens an answer took: words were counted instead"] = None
        cuts = [at for stop in decoding.stop if (at := text.find(stop)) >= 0]
        text = text[: min(cuts)] if cuts else text
        held = reason == "content_filter" and not text.strip()
        return ServedMessage(text, message.reasoned, held), tokens, reason == "stop" or bool(cuts)

    async def _models(self, client: Any) -> list[dict[str, Any]]:
        """Return the server's list of models; empty where it cannot be had."""
        try:
            told: Any = await asyncio.wait_for(self._server.ask(client, "/models", retries=LISTING_RETRIES), LISTING)
        except (EndpointError, asyncio.TimeoutError):
            return []
        listed = told.get("data") if isinstance(told, dict) else None
        return [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []

    async def _tell(self, emit: Callable[[dict[str, Any]], None]) -> None:
        """Emit what the server tells about the weights behind the name, without times and what changes by itself."""
        async with self._server.client(1) as client:
            listed = await self._models(client)
        named = [m for m in listed if m.get("id") == self.name]
        # llama.cpp serves one model and takes any name for it.
        model = (named or (listed if len(listed) == 1 else [{}]))[0]
        meta = model.get("meta")
        told = {field: model.get(field) for field in ("id", "root", "parent", "revision")}
        told |= {field: meta.get(field) for field in ("n_params", "size")} if isinstance(meta, dict) else {}
        emit({field: value for field, value in told.items() if isinstance(value, str | int)})

    async def _unknown(self, client: Any, refused: RefusedError) -> EndpointError:
        """Return the error for a 404, with the models that there are."""
        names = [self._server.clean(m["id"]) for m in await self._models(client) if "id" in m]
        more = ", …" if len(names) > NAMED else ""
        fix = f"it has {', '.join(names[:NAMED])}{more}" if names else "check address and model name"
        return RefusedError(404, refused.said, file=self.url, module=self.name, fix=fix)
