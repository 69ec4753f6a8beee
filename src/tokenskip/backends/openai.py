"""Any OpenAI-compatible server as a backend: vLLM, SGLang, transformers serve, llama.cpp, a hosted API.

    pip install 'tokenskip[openai]'
    tokenskip run mine.yaml --set generate.backend=openai --set generate.options.url=http://localhost:8000

Prompts go as chat turns, the ratio as `chat_template_kwargs`; the first short prompt's `usage` tells whether the server
wrote the ratio into it. With `endpoint: completions`, and for a prompt whose answer has begun, our own token ids go to
`/v1/completions`. Up to `concurrency` requests are under way; the client repeats one after 408, 409, 429, 5xx, a lost
connection or a timeout, `retries` times, 0.5 s apart and doubling up to 8 s, or as long as the server says.

A request that still fails becomes an error record. A server that is gone, or fails `GIVE_UP_AFTER` requests in a row,
ends the run with one line: what was answered is kept on disk, and the same command goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import zlib
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import openai

from tokenskip.arms import Arm, round_number
from tokenskip.backends._journal import Journal
from tokenskip.client import KEY_VARIABLE, base_url, check_served
from tokenskip.errors import BackendError, ConfigError
from tokenskip.prompts import ratio_kwargs
from tokenskip.types import Completion, Finish, Prompt, Sampling

GIVE_UP_AFTER = 8
"""Requests that fail one after the other, none answered in between: the server's fault, not a prompt's."""

Served = str | Mapping[str, str] | None
WEIGHTS = ("base", "adapter", "control", "full_chain", "longer")
_SERVED_AS = {"tokenskip": "adapter", "random": "control"}


class OpenAIBackend:
    """Completes prompts on a server.

    `url`: the server (default: OPENAI_BASE_URL, else http://localhost:8000). `served`: the model's name there, or names
    per weights, `{base: …, adapter: …, control: …}`, each possibly `NAME@URL` for a server of its own (default: `path`
    for the base, none for the others). `extra`: fields for every request's body.

    Raises:
        BackendError: the server is down or does not serve that name; ConfigError: nothing is served for an adapter.
    """

    def __init__(
        self,
        path: str,
        tokenizer: Any,
        adapter: Path | None = None,
        journal: Path | None = None,
        *,
        url: str | None = None,
        served: Served = None,
        endpoint: Literal["chat", "completions"] = "chat",
        concurrency: int = 16,
        retries: int = 6,
        timeout_s: float = 600.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if endpoint not in ("chat", "completions"):
            raise ConfigError(f"generate.options.endpoint is chat or completions; given: {endpoint!r}")
        if concurrency < 1 or retries < 0 or timeout_s <= 0:
            raise ConfigError("generate.options: concurrency and timeout_s are above 0, retries is not below 0")
        weights = _weights_of(adapter)
        name = _served_names(path, served).get(weights)
        if name is None:
            raise ConfigError(_not_served(weights))
        self.model, _, own_url = name.partition("@http")
        own = f"http{own_url}" if own_url else url or os.environ.get("OPENAI_BASE_URL") or "http://localhost:8000"
        self.url = base_url(own)
        self.tokenizer, self.endpoint, self.concurrency = tokenizer, endpoint, concurrency
        self.retries, self.timeout_s, self.extra = retries, timeout_s, dict(extra or {})
        self.journal = journal
        self._form: Literal["ids", "text"] | None = None  # how the server takes a prompt of ours; found by asking
        self._ratio_is_heard = False
        self._failed_in_a_row, self._answered = 0, False
        check_served(self.url, self.model)

    @staticmethod
    def refuses(arm: Arm, path: str, *, served: Served = None, **_: Any) -> str | None:
        """Why these options cannot do an arm of the evaluation; None when they can."""
        if "/" in arm.weights:
            return f"a server cannot be told to load {arm.weights}"
        weights = _SERVED_AS.get(arm.weights, arm.weights)
        asks = arm.forced or not arm.cut
        return _not_served(weights) if asks and weights not in _served_names(path, served) else None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Backend.generate`. Tokens are counted by the target's tokenizer, not by the server.

        Raises:
            BackendError: the server is gone or refuses everything, ignores the ratio, or cannot continue a text.
        """
        keys = [self._key(prompt, sampling, i) for i, prompt in enumerate(prompts)]
        journal = Journal(self.journal, keys)
        known = journal.read()
        missing = [i for i, key in enumerate(keys) if key not in known]
        if missing:
            fresh = _run(self._ask_all(journal, [(keys[i], prompts[i], sampling, i) for i in missing]))
            known |= {keys[i]: completion for i, completion in zip(missing, fresh, strict=True)}
        journal.clear()
        return [known[key] for key in keys]

    def close(self) -> None:
        """Nothing to free: connections end with each call of `generate`."""

    async def _ask_all(self, journal: Journal, asked: Sequence[tuple[str, Prompt, Sampling, int]]) -> list[Completion]:
        gate = asyncio.Semaphore(self.concurrency)
        key = os.environ.get(KEY_VARIABLE, "none")
        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=key, max_retries=self.retries, timeout=self.timeout_s
        ) as client:
            raw = [prompt for _, prompt, _, _ in asked if self._is_raw(prompt)]
            if raw and self._form is None:
                self._form = await self._probe(client, raw[0])

            async def one(key: str, prompt: Prompt, sampling: Sampling, i: int) -> Completion:
                async with gate:
                    completion = await self._ask(client, prompt, sampling, i)
                if completion.error is None:
                    journal.note(key, completion)
                return completion

            tasks = [asyncio.create_task(one(*each)) for each in asked]
            try:
                done = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if not self._answered:
            raise BackendError(f"{self.url} answered none of {len(done)} requests: {done[0].error}")
        return done

    async def _ask(self, client: Any, prompt: Prompt, sampling: Sampling, i: int) -> Completion:
        """One answer, or why there is none; BackendError for what repeating or the next prompt cannot mend."""
        try:
            if self._is_raw(prompt):
                reply = await client.completions.create(**self._raw_payload(prompt, sampling, i))
            else:
                reply = await client.chat.completions.create(**self._chat_payload(prompt, sampling, i))
        except openai.APITimeoutError:
            return self._failed(f"no answer in {self.timeout_s:g} s", count=True)
        except openai.APIConnectionError as error:
            raise BackendError(
                f"the server at {self.url} is gone ({error.__cause__ or error}): what it answered is kept; "
                "start it again, and the same command goes on from here"
            ) from None
        except openai.APIStatusError as error:
            said = f"HTTP {error.status_code}: {_one_line(error.message.rpartition(' - ')[2])}"
            if error.status_code in (401, 403, 404):
                hint = f" ({KEY_VARIABLE} holds the key)" if error.status_code != 404 else ""
                raise BackendError(f"{self.url} refuses {self.model!r}: {said}{hint}") from None
            return self._failed(said, count=error.status_code >= 429)
        except (openai.APIError, ValueError) as error:  # a reply that is not what an OpenAI server sends
            return self._failed(f"unreadable reply: {_one_line(str(error))}", count=True)
        if not getattr(reply, "choices", None):
            return self._failed("a reply without choices, as no OpenAI-compatible server sends it", count=True)
        self._failed_in_a_row, self._answered = 0, True
        self._check_ratio(prompt, reply)
        return self._completion(reply)

    def _failed(self, error: str, *, count: bool) -> Completion:
        self._failed_in_a_row += count
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            raise BackendError(
                f"{self.url} failed {GIVE_UP_AFTER} requests in a row, the last with {error}: what it answered is "
                "kept; when it is well again, the same command goes on from here"
            )
        return Completion(text="", n_tokens=0, finish="error", error=error)

    def _completion(self, reply: Any) -> Completion:
        choice = reply.choices[0]
        text: str | None = choice.text if hasattr(choice, "text") else _message_text(choice.message)
        if text is None or choice.finish_reason not in ("stop", "length", None):
            error = f"no text came back (finish_reason {choice.finish_reason})"
            return Completion(text=text or "", n_tokens=0, finish="error", error=error)
        text = text.encode("utf-8", "replace").decode()  # JSON can hold half a character; no file and no tokenizer can
        finish: Finish = "length" if choice.finish_reason == "length" else "stop"
        return Completion(text=text, n_tokens=len(self._ids(text)), finish=finish)

    def _check_ratio(self, prompt: Prompt, reply: Any) -> None:
        """BackendError when a short prompt was as long as the plain one; once per backend."""
        usage = getattr(reply, "usage", None)
        if self._ratio_is_heard or prompt.ratio == 1 or self._is_raw(prompt) or not usage or not usage.prompt_tokens:
            return
        plain = self.tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
        if usage.prompt_tokens == len(self._ids(plain)) != len(prompt.token_ids):
            raise BackendError(
                f"{self.url} ignores compression_ratio for {self.model!r}: its chat template lacks the ratio; serve it "
                "with the adapter's chat_template.jinja (see `tokenskip doctor`), or set "
                "generate.options.endpoint=completions"
            )
        self._ratio_is_heard = True

    def _is_raw(self, prompt: Prompt) -> bool:
        return self.endpoint == "completions" or bool(prompt.prefill)

    async def _probe(self, client: Any, prompt: Prompt) -> Literal["ids", "text"]:
        """How `/v1/completions` takes exactly our tokens, judged by `usage`: as ids, else as text."""
        counts = []
        forms: tuple[Literal["ids", "text"], ...] = ("ids", "text")
        for form in forms:
            body = {"model": self.model, "prompt": self._raw(prompt, form), "max_tokens": 1, "temperature": 0}
            try:
                reply = await client.completions.create(**body)
            except openai.APIConnectionError as error:
                raise BackendError(f"the server at {self.url} is gone ({error}): nothing is lost") from None
            except openai.APIError as error:
                counts.append(_one_line(error.message))
                continue
            if not reply.usage or reply.usage.prompt_tokens == len(prompt.token_ids):
                return form
            counts.append(f"{reply.usage.prompt_tokens} tokens")
        raise BackendError(
            f"{self.url}/completions cannot take a prompt of {len(prompt.token_ids)} tokens as it is (as ids: "
            f"{counts[0]}; as text: {counts[1]}): leave truncation_forced out of evaluate.arms, and endpoint at chat"
        )

    def _raw(self, prompt: Prompt, form: Literal["ids", "text"] | None) -> list[int] | str:
        if form != "text":
            return list(prompt.token_ids)
        ids = list(prompt.token_ids)
        added = self.tokenizer("")["input_ids"]  # what the server's tokenizer will put in front by itself
        if added and ids[: len(added)] == added:
            ids = ids[len(added) :]
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _raw_payload(self, prompt: Prompt, sampling: Sampling, i: int) -> dict[str, Any]:
        return {**self._common(prompt, sampling, i), "prompt": self._raw(prompt, self._form)}

    def _chat_payload(self, prompt: Prompt, sampling: Sampling, i: int) -> dict[str, Any]:
        payload = {**self._common(prompt, sampling, i), "messages": list(prompt.messages)}
        if kwargs := ratio_kwargs(prompt.ratio):
            extra = payload["extra_body"]
            payload["extra_body"] = {
                **extra,
                "chat_template_kwargs": {**extra.get("chat_template_kwargs", {}), **kwargs},
            }
        return payload

    def _common(self, prompt: Prompt, sampling: Sampling, i: int) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": prompt.max_new_tokens or sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "extra_body": self.extra,
        }
        if sampling.temperature > 0:  # a seed of its own: repeated samples of a question differ
            seed = sampling.seed ^ zlib.crc32(repr((i, prompt.token_ids)).encode())
            payload |= {"top_p": sampling.top_p, "seed": seed % 2**31 if prompt.seed is None else prompt.seed}
        return payload

    def _key(self, prompt: Prompt, sampling: Sampling, i: int) -> str:
        payload = self._raw_payload if self._is_raw(prompt) else self._chat_payload
        spelled = json.dumps([i, payload(prompt, sampling, i), prompt.token_ids], sort_keys=True, default=str)
        return hashlib.sha256(spelled.encode()).hexdigest()[:32]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def _weights_of(adapter: Path | None) -> str:
    """Which weights a folder holds: the adapter of a run, or of the control run inside it."""
    if adapter is None:
        return "base"
    folder = adapter.absolute().parent.name
    if folder.startswith("round-"):
        return folder.replace("-", "_")
    return {"control-random": "control", "control-full-chain": "full_chain", "control-longer": "longer"}.get(
        folder, "adapter"
    )


def _served_names(path: str, served: Served) -> dict[str, str]:
    if served is None or isinstance(served, str):
        return {"base": served or path}
    if unknown := [key for key in served if key not in WEIGHTS and round_number(key) is None]:
        raise ConfigError(f"generate.options.served: no {unknown[0]!r}, its keys are {', '.join(WEIGHTS)}, round_1, …")
    return {"base": path, **served}


def _not_served(weights: str) -> str:
    return (
        f"a server that has the {weights} weights must be named: --set "
        f"'generate.options.served={{base: NAME, {weights}: NAME}}' (`tokenskip serve RUN` says how to start one)"
    )


def _message_text(message: Any) -> str | None:
    """The text of a chat reply; a server that splits reasoning off gets it put back in its tags."""
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    content: str | None = message.content
    if not reasoning:
        return content
    return f"<think>{reasoning}" + (f"</think>{content}" if content else "")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _run(work: Coroutine[Any, Any, list[Completion]]) -> list[Completion]:
    """The result of `work`, also where a loop is running already, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
