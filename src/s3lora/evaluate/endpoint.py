"""A model behind a server that speaks OpenAI's chat API: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from s3lora.errors import UsageError
from s3lora.evaluate.address import EndpointError
from s3lora.evaluate.background import all_or_none, stream
from s3lora.evaluate.chat import Decoding, Generation, Prompt, digest_of
from s3lora.evaluate.server import RefusedError, Server

#: Seconds to wait for the list of models, and retries: it is good to have, no more.
LISTING, LISTING_RETRIES = 30.0, 2
#: How many models an error names.
NAMED = 8


class EndpointModel:
    """A chat model behind `{url}/chat/completions`; several requests are under way at once.

    Parameters:
        url: the server's address, with or without `/v1`.
        name: the model's name there.
        parallel: requests at a time.
        timeout: seconds for one try of a request, from connecting to the last byte.
        retries: further tries where the connection breaks, or the server answers 429, 500, 502, 503, 504 or nonsense;
            a request that times out is tried twice at most. Pauses double, and `Retry-After` is honoured.

    The key comes from S3LORA_API_KEY, else OPENAI_API_KEY. It is refused over plain http to another machine.

    The server sees temperature, seed, stop strings and the limit of tokens; what else shapes its answers is its own
    affair, as is whether the same request gets the same answer twice.

    Raises EndpointError where URL or key cannot be used, MissingPackageError without httpx.
    """

    backend = "OpenAI-compatible server"

    def __init__(self, url: str, name: str, *, parallel: int = 8, timeout: float = 120.0, retries: int = 5) -> None:
        """Check the settings; nothing is sent yet."""
        if parallel < 1 or retries < 0 or not 0 < timeout < float("inf"):
            raise UsageError("an endpoint needs at least one request at a time, no negative retries and a time limit")
        self.name = name
        self.parallel = parallel
        #: What a reader of the results must know.
        self.notes: tuple[str, ...] = ()
        self._server = Server(url, name, timeout=timeout, retries=retries)
        self._limit = "max_tokens"

    @property
    def url(self) -> str:
        """Return the address that `/chat/completions` is appended to."""
        return self._server.url

    @cached_property
    def identity(self) -> str:
        """Return a digest of host, path, model name, and what the server tells about the model.

        The server is asked once. It can put other weights behind the same name, and need not tell: then the store must
        be cleared, or not be used.
        """
        [told] = stream(self._tell)
        parts = urlsplit(self.url)
        return digest_of(["endpoint", parts.netloc, parts.path, self.name, told])

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
            todo = iter(order)

            async def work() -> None:
                for i in todo:
                    emit((i, await self._answer(client, prompts[i], decoding)))

            async with self._server.client(self.parallel) as client:
                await all_or_none([work() for _ in range(min(self.parallel, len(order)))])

        yield from stream(answer_all)

    async def _answer(self, client: Any, prompt: Prompt, decoding: Decoding) -> Generation:
        limit = self._limit
        body: dict[str, Any] = {
            "model": self.name,
            "messages": prompt.as_dicts(),
            limit: decoding.max_new_tokens,
            "temperature": decoding.temperature,
        }
        if decoding.temperature > 0:
            # Servers may have defaults of their own; `seed` is not among the fields that all of them know.
            body |= {"top_p": 1.0, "seed": decoding.seed}
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        try:
            return await self._server.ask(client, "/chat/completions", body, lambda told: self._read(told, decoding))
        except RefusedError as refused:
            # OpenAI's newer models know the limit under its new name alone, and other servers under the old one alone.
            if refused.status in (400, 422) and "max_completion_tokens" in refused.said and limit == "max_tokens":
                self._limit = "max_completion_tokens"
                return await self._answer(client, prompt, decoding)
            if refused.status == 404:
                raise await self._unknown(client, refused) from None
            raise

    def _read(self, told: Any, decoding: Decoding) -> Generation:
        """Return the answer in a reply; raise ValueError where there is none."""
        if isinstance(told, dict) and told.get("error"):
            raise ValueError(f"an error in place of an answer: {told['error']}")
        try:
            choice = told["choices"][0]
            content, reason = choice["message"].get("content"), choice.get("finish_reason")
        except (LookupError, TypeError, AttributeError):
            raise ValueError("no choices") from None
        text = self._server.hide(_text(content))
        usage = told.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if type(tokens) is not int or tokens < 0:
            tokens = len(text.split())
            self.notes = ("the server does not tell how many tokens an answer took: words were counted instead",)
        cuts = [at for stop in decoding.stop if (at := text.find(stop)) >= 0]
        return Generation(text[: min(cuts)] if cuts else text, tokens, reason == "stop" or bool(cuts))

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


def _text(content: object) -> str:
    """Return the text of a message's content: a string, a list of parts, or nothing beside tool calls or reasoning."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    # Half a surrogate pair is legal in JSON and nowhere else.
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else ""
