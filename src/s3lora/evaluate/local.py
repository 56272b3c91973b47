"""A model in this process, on a CPU or on CUDA: the base is loaded once, adapters and prunings switch in place."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

from s3lora.adapter.digest import Source
from s3lora.adapter.model import Adapter
from s3lora.errors import ModelError
from s3lora.evaluate.answers.tokens import TokenReader
from s3lora.evaluate.attach import Attached, AttachedAdapters, State
from s3lora.evaluate.chat import Decoding, Generation, Prompt, digest_of
from s3lora.evaluate.chat_setup import NO_SETUP, ChatSetup, facts_of
from s3lora.evaluate.drawing import STAGE, cache_of, draw_answers
from s3lora.evaluate.fit import fitting
from s3lora.evaluate.identity import identity_of
from s3lora.evaluate.loading import LoadedBase, find_base, is_out_of_memory, load_base
from s3lora.evaluate.results import ChatFacts, Loaded
from s3lora.evaluate.templates import LocalTemplate
from s3lora.needs import need
from s3lora.wording import worded

#: Answers at a time on a CPU: beyond this the cores are busy anyway and only memory grows. A small model has room.
CPU_BATCH, SMALL_BATCH, SMALL = 50, 100, 500_000_000
#: Answers at a time on CUDA, before the memory left is looked at.
CUDA_BATCH = 256
#: A system prompt that so many prompts share, so long, is read once for all of them.
SHARED_ROWS, SHARED_TOKENS = 2, 8
#: Tokens of prompts and references in one pass without generation.
LOSS_TOKENS = 2048


class LocalModel:
    """A causal language model with any number of adapters attached.

    Parameters:
        base: a model folder, a `.gguf` file, a Hub name, `demo`, or `demo-aligned`.
        device: `cpu`, `cuda`, …; by default CUDA where there is one.
        dtype: a torch dtype by name; by default float32 on a CPU, and bfloat16 elsewhere.
        batch_size: answers at a time; by default chosen for the machine. It halves by itself when memory runs out.
        chat: what is put around every prompt: a system prompt, examples, arguments of the chat template.
        adapters: open adapters that are to be attached. What cannot be, or does not fit the base, is told before the
            weights of the base are read.

    Answers come without the reasoning before them. A prompt that leaves no room for the answer in the model's context
    is not asked: its answer is unknown, its loss NaN.

    Greedy decoding on one machine gives equal answers at every run; other machines, numbers of threads or batch sizes
    round differently, which can turn a near tie between two tokens.
    """

    def __init__(
        self,
        base: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        chat: ChatSetup = NO_SETUP,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """Load the base; raises ModelError and MissingPackageError, and for an adapter what `attach` raises."""
        find_base(base, device=device, dtype=dtype)  # first: what is wrong with the name is told before all else
        self._around(load_base(base, device=device, dtype=dtype, check=fitting(adapters) if adapters else None), chat)
        # What a checkpoint suggests (sampling, penalties) must not mix with the decoding that is asked for.
        self.base.model.generation_config = self._transformers.GenerationConfig()
        self.base_identity = identity_of(self.base)
        self.adapters = AttachedAdapters(self.base)
        self.batch_size = batch_size or (self._cpu_batch() if self.device.type == "cpu" else self._cuda_batch())

    def _around(self, base: LoadedBase, chat: ChatSetup) -> None:
        self._torch, self._transformers = need("torch"), need("transformers")
        self.base = base
        self._stops = self._ends()
        rows, pad = base.model.get_input_embeddings().weight.shape[0], base.tokenizer.pad_token_id
        # Some tokenizers have none, or one that the model has no embedding for. It is masked, so any token will do.
        self._padding = pad if pad is not None and pad < rows else 0
        self.template = LocalTemplate(base, chat)
        #: What a whole answer ends with, as text.
        self.turn_end = self.template.end_of_turn(self._stops)
        self._reader = TokenReader(base.tokenizer, self._stops)
        self._context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
        self.device: Any = next(base.model.parameters()).device

    @property
    def name(self) -> str:
        """Return the base's name without folders."""
        return self.base.name

    @property
    def backend(self) -> str:
        """Return the library that runs the model, with its version."""
        return f"transformers {self._transformers.__version__}"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Return the tokens of the tokenizer that are no text, the longest first."""
        return self.base.special_tokens

    @property
    def dtype(self) -> str:
        """Return the dtype of the base's weights."""
        return str(next(self.base.model.parameters()).dtype).removeprefix("torch.")

    @property
    def identity(self) -> str:
        """Return a digest of the base, of what is put around prompts and ends answers, and of what is switched on."""
        state = self.adapters.state.identity
        ends = [self._stops, self.turn_end]
        return digest_of([self.base_identity, self.template.identity, state, ends, self.device.type])

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the results must know, as far as it has turned out."""
        return (*self.base.notes, *self.template.notes)

    @property
    def chat(self) -> ChatFacts:
        """Return what is put around every prompt, for the record."""
        return facts_of(self.template.setup, self.template.date)

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the tokens that end an answer."""
        return tuple(self._stops)

    def attach(self, adapter: Adapter | str | Path, source: Source | None = None) -> Attached:
        """Load an adapter beside the others; see `AttachedAdapters.attach`."""
        return self.adapters.attach(adapter, source)

    def use(self, adapter: Attached | None = None, pruned: Sequence[str] | frozenset[str] = ()) -> None:
        """Switch to the base alone, or to an adapter without its `pruned` modules."""
        self.adapters.use(State(adapter, frozenset(pruned)))

    def loaded(self) -> Loaded:
        """Count what of LoRA takes part in the forward pass now."""
        return self.adapters.count()

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Sort by length, so that little is padding, and cut."""
        lengths = [len(ids) for ids in self._encode(prompts)]
        order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def generate(
        self, prompts: Sequence[Prompt], decoding: Decoding, batches: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[int, Generation]]:
        """Yield the answers batch by batch."""
        for batch in self.batches(prompts, decoding) if batches is None else batches:
            rows = zip(batch, self._encode([prompts[i] for i in batch]), strict=True)
            fitting = [i for i, ids in rows if self.fits(len(ids) + decoding.max_new_tokens)]
            yield from ((i, Generation("", 0, False, unknown="prompt")) for i in batch if i not in fitting)
            if fitting:
                answers = self.halving(
                    fitting, lambda part: self._answer([prompts[i] for i in part], decoding), lower=True
                )
                yield from zip(fitting, answers, strict=True)

    def answer_exactly(self, prompts: Sequence[Prompt], tokens: int) -> None:
        """Generate so many tokens for every prompt in one batch, and drop them: work of a fixed size, to be timed."""
        ids, mask = self.padded(self._encode(prompts))
        config = self._transformers.GenerationConfig(
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=self._stops,
            pad_token_id=self._padding,
        )  # fmt: skip
        with self._torch.inference_mode(), self._own_settings():
            self.adapters.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        self.wait()

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            self._torch.cuda.synchronize(self.device)

    def losses(
        self, prompts: Sequence[Prompt], references: Sequence[str], cut: Collection[int] = ()
    ) -> list[tuple[float, int]]:
        """Return (summed cross-entropy in nats, number of tokens) of each reference, end of turn included.

        References at the places `cut` do not end there, so that no end of turn follows them. NaN where prompt and
        reference do not fit into the model's context.
        """
        tokenizer = self.base.tokenizer
        heads = self._encode(prompts)
        ended = [text if i in cut else text + self.turn_end for i, text in enumerate(references)]
        tails = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ended]
        order = sorted(range(len(heads)), key=lambda i: (len(heads[i]) + len(tails[i]), i))
        found = {i: (nan, len(tails[i])) for i in order if not self.fits(len(heads[i]) + len(tails[i]))}
        order = [i for i in order if i not in found]
        while order:
            width = 1
            while (
                width < len(order)
                and (width + 1) * (len(heads[order[width]]) + len(tails[order[width]])) <= LOSS_TOKENS
            ):
                width += 1
            batch, order = order[:width], order[width:]
            values = self.halving(batch, lambda part: self._losses([heads[i] for i in part], [tails[i] for i in part]))
            found.update(zip(batch, values, strict=True))
        return [found[i] for i in range(len(heads))]

    def next_probabilities(self, prompts: Sequence[Prompt], lead: str = "") -> list[Any]:
        """Return the probability of every token as the next one after each prompt and `lead`, as float32 on the CPU.

        `lead` is left out where the prompt ends with it.
        """
        first = self.base.tokenizer(lead, add_special_tokens=False)["input_ids"] if lead else []
        rows = [row if first and row[-len(first) :] == first else [*row, *first] for row in self._encode(prompts)]
        return self.halving([*range(len(rows))], lambda part: self._next([rows[i] for i in part])) if rows else []

    def _next(self, rows: Sequence[Sequence[int]]) -> list[Any]:
        ids, mask = self.padded(rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with self._torch.inference_mode():
            out = self.adapters.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
            )
            return list(self._torch.softmax(out.logits[:, -1].float(), -1).cpu())

    def _encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return [prompt.ids for prompt in self.template.encode(prompts)]

    def fits(self, tokens: int) -> bool:
        """Tell whether so many tokens, prompt and answer together, have positions in the model."""
        return not isinstance(self._context, int) or tokens <= self._context

    def padded(self, rows: Sequence[Sequence[int]], shared: int = 0) -> tuple[Any, Any]:
        """Return ids and mask, padded behind the `shared` first tokens so that all rows end together."""
        torch = self._torch
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self._padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            start = length - len(row) + shared
            for columns, part in ((slice(0, shared), row[:shared]), (slice(start, length), row[shared:])):
                ids[i, columns] = torch.tensor(part, dtype=torch.long)
                mask[i, columns] = 1
        return ids.to(self.device), mask.to(self.device)

    @property
    def _plain(self) -> bool:
        """Tell whether the model remembers keys and values of all tokens, and nothing else."""
        config = self.base.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
        # Where layers are not told apart, a window is that of all.
        kinds = set(getattr(config, "layer_types", None) or ["a window" if window else "full_attention"])
        return kinds == {"full_attention"} and not getattr(self.base.model, "_is_stateful", False)

    def _prefix(self, rows: Sequence[Sequence[int]]) -> int:
        """Return how many first tokens all prompts share, where it pays to read them once for the whole batch."""
        if not self._plain or len(rows) < SHARED_ROWS:
            return 0
        most = min(map(len, rows)) - 1
        columns = zip(*rows, strict=False)
        shared = next((i for i, tokens in enumerate(columns) if i == most or len(set(tokens)) > 1), 0)
        return shared if shared >= SHARED_TOKENS else 0

    def _read_prefix(self, ids: Any, shared: int) -> dict[str, Any]:
        """Return the key-value cache of the shared tokens, once for each row."""
        if not shared:
            return {}
        cache = cache_of(self.adapters.model(input_ids=ids[:1, :shared], use_cache=True, logits_to_keep=1))
        for held in cache.values():
            held.batch_repeat_interleave(len(ids))
        return cache

    def _answer(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Generation]:
        torch = self._torch
        encoded = self.template.encode(prompts)
        rows = [prompt.ids for prompt in encoded]
        shared = self._prefix(rows)
        ids, mask = self.padded(rows, shared)
        sampling: dict[str, Any] = {"do_sample": decoding.temperature > 0}
        if decoding.temperature > 0:
            sampling |= {"temperature": decoding.temperature, "top_k": 0, "top_p": 1.0}
            torch.manual_seed(decoding.seed)

        def config(tokens: int) -> Any:
            own = {"max_new_tokens": tokens, "eos_token_id": self._stops, "pad_token_id": self._padding}
            return self._transformers.GenerationConfig(**own, **sampling)

        with torch.inference_mode(), self._own_settings():
            written = draw_answers(
                self.adapters.model.generate,
                ids,
                mask,
                tokens=decoding.max_new_tokens,
                stage=STAGE if self._plain else decoding.max_new_tokens,
                ended=lambda tokens: self._reader.has_ended(tokens, decoding.stop),
                config=config,
                cache=self._read_prefix(ids, shared),
                more=self._stopping(ids.shape[1], decoding.stop),
            )
        answers = zip(written, encoded, strict=True)
        return [self._reader.answer(row, decoding.stop, opened=prompt.opened) for row, prompt in answers]

    def _stopping(self, start: int, stop: Sequence[str]) -> dict[str, Any]:
        """Return what ends an answer at a stop string. That of transformers also looks at the end of the prompt."""
        if not stop:
            return {}

        def stopped(ids: Any, _: object, **__: object) -> Any:
            found = [self._reader.stops_at(row, stop) for row in ids[:, start:].tolist()]
            return self._torch.tensor(found, device=ids.device)

        return {"stopping_criteria": self._transformers.StoppingCriteriaList([stopped])}

    def _losses(self, heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]) -> list[tuple[float, int]]:
        torch = self._torch
        with torch.inference_mode():
            rows = []
            for logits, tail in zip(self.answer_logits(heads, tails), tails, strict=True):
                labels = torch.tensor(tail, dtype=torch.long, device=self.device)
                nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
                rows.append((float(nats.double().sum()), len(tail)))
        return rows

    def answer_logits(self, heads: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]) -> list[Any]:
        """Return for each prompt the logits (T, vocabulary) that predict the T tokens of its answer, in float32.

        Gradients pass through, unless they are switched off. What all prompts begin with is read once.
        """
        shared = self._prefix(heads)
        ids, mask = self.padded([[*head, *tail] for head, tail in zip(heads, tails, strict=True)], shared)
        # Left padding shifts positions; models count them from the mask only when they generate.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self.adapters.model(
            input_ids=ids[:, shared:],
            attention_mask=mask,
            position_ids=positions[:, shared:],
            use_cache=bool(shared),
            logits_to_keep=max(map(len, tails)) + 1,
            **self._read_prefix(ids, shared),
        )
        # Position i predicts token i + 1. Row by row: a softmax over a middle axis takes four times as long.
        return [row[-len(tail) - 1 : -1].float() for row, tail in zip(out.logits, tails, strict=True)]

    def _ends(self) -> list[int]:
        config = getattr(self.base.model, "generation_config", None)
        given = getattr(config, "eos_token_id", None)
        ends = list(given) if isinstance(given, (list, tuple)) else [given]
        return sorted({int(end) for end in (*ends, self.base.tokenizer.eos_token_id) if end is not None})

    @contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Keep transformers from warning about sampling defaults of the model that are not used here."""
        logging = self._transformers.utils.logging
        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(level)

    def halving(self, items: list[int], run: Callable[[list[int]], Sequence[Any]], *, lower: bool = False) -> list[Any]:
        """Run over all items at once, and over halves when memory runs out; a single item too big is an error.

        With `lower` no later batch of answers is larger than what went.
        """
        try:
            return list(run(items))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        gc.collect()
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()
        if len(items) == 1:
            raise ModelError(
                "memory runs out even with one prompt at a time",
                file=self.name,
                fix=worded("use fewer tokens or {dtype}bfloat16"),
            )
        half = len(items) // 2
        if lower:
            self.batch_size = min(self.batch_size, half)
        return [*self.halving(items[:half], run, lower=lower), *self.halving(items[half:], run, lower=lower)]

    def _cpu_batch(self) -> int:
        return SMALL_BATCH if self.base.model.num_parameters() < SMALL else CPU_BATCH

    def _cuda_batch(self) -> int:
        """Choose by what is free: about 64 MB an answer holds a few hundred tokens' cache of a 7B model."""
        free, _ = self._torch.cuda.mem_get_info(self.device)
        most = int(min(CUDA_BATCH, max(1, free // (64 << 20))))
        # A power of two: a little memory that others use makes no other batches, and so no other answers.
        return int(1 << (most.bit_length() - 1))
