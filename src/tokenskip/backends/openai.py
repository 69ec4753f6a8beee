"""Any OpenAI-compatible server as a backend: vLLM, SGLang, transformers serve, llama.cpp, a hosted API.

    tokenskip run mine.yaml --set generate.backend=openai --set generate.options.url=http://localhost:8000

Prompts go as chat turns, the ratio as `chat_template_kwargs`; the first short prompt's `usage` tells whether the server
wrote the ratio into it. With `endpoint: completions`, and for a prompt whose answer has begun, our own token ids go to
`/v1/completions`. Up to `concurrency` requests are under way, each repeated and bounded as `client.Client` says;
`timeout_s` is for a whole answer.

A request that still fails becomes an error record. A server that is gone, or fails `GIVE_UP_AFTER` requests in a row,
ends the run with one line: what was answered is kept on disk, and the same command continues from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenskip.arms import Arm, round_number
from tokenskip.backends import _replies as replies
from tokenskip.backends._journal import Journal
from tokenskip.client import Client, NoReply, base_url, check_served, run
from tokenskip.errors import BackendError, ConfigError
from tokenskip.prompting.prompts import ratio_kwargs
from tokenskip.ratio import UNMAPPED
from tokenskip.ratio import read as read_map
from tokenskip.storage.store import ADAPTER
from tokenskip.terminal import one_line
from tokenskip.trust import KEY_VARIABLE
from tokenskip.types import Completion, Finish, Prompt, Sampling

GIVE_UP_AFTER = 8
"""Requests that fail one after the other, none answered in between: the server's fault, not a prompt's."""

Served = str | Mapping[str, str] | None
_Keyed = tuple[str, Prompt, Sampling, int]
"""A prompt with its key in the journal, its sampling and its place in the window."""
WEIGHTS = ("base", "adapter", "control", "full_chain", "longer", "preference", "grpo")
_SERVED_AS = {"tokenskip": "adapter", "random": "control"}


class OpenAIBackend:
    """Completes prompts on a server.

    `url`: the server (default: OPENAI_BASE_URL, else http://localhost:8000). `served`: the model's name there, or names
    per weights, `{base: …, adapter: …, control: …}`, each possibly `NAME@URL` for another server (default: `path`
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
        template_kwargs: Mapping[str, Any] | None = None,
        *,
        url: str | None = None,
        served: Served = None,
        endpoint: Literal["chat", "completions"] = "chat",
        concurrency: int = 16,
        retries: int = 6,
        timeout_s: float = 600.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.check_options(
            url=url,
            served=served,
            endpoint=endpoint,
            concurrency=concurrency,
            retries=retries,
            timeout_s=timeout_s,
            extra=extra,
        )
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
        self._unmapped = _switch_off_map(journal.parent / ADAPTER if journal else adapter)
        self.template_kwargs = dict(template_kwargs or {})
        self._form: Literal["ids", "text"] | None = None  # how the server takes a prompt of ours; found by asking
        self._ratio_is_honoured = False
        self._failed_in_a_row, self._answered = 0, False
        check_served(self.url, self.model)

    @staticmethod
    def check_options(
        *,
        url: Any = None,
        served: Any = None,
        endpoint: Any = "chat",
        concurrency: Any = 16,
        retries: Any = 6,
        timeout_s: Any = 600.0,
        extra: Any = None,
    ) -> None:
        """Raises ConfigError for an option that cannot be used, before anything is asked or written."""
        if endpoint not in ("chat", "completions"):
            raise ConfigError(f"generate.options.endpoint is chat or completions; given: {endpoint!r}")
        numbers = {"concurrency": (concurrency, 1), "retries": (retries, 0), "timeout_s": (timeout_s, 0.001)}
        for name, (value, least) in numbers.items():
            allowed = (int, float) if name == "timeout_s" else (int,)
            if isinstance(value, bool) or not isinstance(value, allowed) or not least <= value < 1e9:
                raise ConfigError(f"generate.options.{name} is a number, at least {least:g}; given: {value!r}")
        if not isinstance(served, (str, Mapping, type(None))) or not isinstance(extra, (Mapping, type(None))):
            raise ConfigError("generate.options: served is a name or names per weights, extra is {field: value}")
        names = [served] if isinstance(served, str) else list((served or {}).values())
        if not all(isinstance(name, str) for name in names):
            raise ConfigError("generate.options.served: a name on a server is text")
        for address in [url, *(f"http{name.partition('@http')[2]}" for name in names if "@http" in name)]:
            if not isinstance(address, (str, type(None))):
                raise ConfigError(
                    f"generate.options.url is an address such as http://localhost:8000; given: {address!r}"
                )
            if address is not None:
                base_url(address)

    @staticmethod
    def refuses(arm: Arm, path: str, *, served: Served = None, **_: Any) -> str | None:
        """Why these options cannot do an arm of the evaluation; None when they can."""
        if "/" in arm.weights:
            return f"a server cannot be asked to load {arm.weights}"
        weights = _SERVED_AS.get(arm.weights, arm.weights)
        asks = arm.forced or not arm.cut  # a chain that is cut is read, not asked for
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
            fresh = run(self._ask_all(journal, [(keys[i], prompts[i], sampling, i) for i in missing]))
            known |= {keys[i]: completion for i, completion in zip(missing, fresh, strict=True)}
        journal.clear()
        return [known[key] for key in keys]

    def close(self) -> None:
        """Nothing to free: connections end with each call of `generate`."""

    async def _ask_all(
        self, journal: Journal, missing: Sequence[tuple[str, Prompt, Sampling, int]]
    ) -> list[Completion]:
        gate = asyncio.Semaphore(self.concurrency)
        async with Client(timeout_s=self.timeout_s, retries=self.retries, concurrency=self.concurrency) as client:
            raw = [prompt for _, prompt, _, _ in missing if self._is_raw(prompt)]
            if raw and self._form is None:
                self._form = await self._probe(client, raw[0])

            async def one(key: str, prompt: Prompt, sampling: Sampling, i: int) -> Completion:
                async with gate:
                    completion = await self._ask(client, prompt, sampling, i)
                if completion.error is None:
                    journal.note(key, completion)
                return completion

            tasks = [asyncio.create_task(one(*each)) for each in missing]
            try:
                done = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if not self._answered:
            raise BackendError(f"{self.url} answered none of {len(done)} requests: {done[0].error}")
        return done

    async def _ask(self, client: Client, prompt: Prompt, sampling: Sampling, i: int) -> Completion:
        """One answer, or why there is none; BackendError for what repeating or the next prompt cannot mend."""
        try:
            reply = await client.ask(*self._request(prompt, sampling, i))
        except NoReply as error:
            if error.gone:
                raise self._gone(error) from None
            return self._failed(str(error), count=True)
        if reply.status != 200:
            message = f"HTTP {reply.status}: {reply.message}"
            if reply.status in (401, 403, 404):
                hint = f" ({KEY_VARIABLE} holds the key)" if reply.status != 404 else ""
                raise BackendError(f"{self.url} refuses {self.model!r}: {message}{hint}")
            return self._failed(message, count=reply.status >= 429)
        try:
            answer = replies.answer(reply.body)
        except replies.OddReply as error:
            return self._failed(str(error), count=True)
        self._failed_in_a_row, self._answered = 0, True
        self._check_ratio(prompt, replies.tokens(reply.body, "prompt_tokens"))
        return self._completion(answer)

    def _request(self, prompt: Prompt, sampling: Sampling, i: int) -> tuple[str, dict[str, Any]]:
        """Address and body of a prompt's request."""
        if self._is_raw(prompt):
            return f"{self.url}/completions", self._raw_payload(prompt, sampling, i)
        return f"{self.url}/chat/completions", self._chat_payload(prompt, sampling, i)

    def _gone(self, error: NoReply) -> BackendError:
        return BackendError(
            f"the server at {self.url} is gone ({error}): what it answered is kept; start it again, and the same "
            "command continues from here"
        )

    def _failed(self, error: str, *, count: bool) -> Completion:
        self._failed_in_a_row += count
        if self._failed_in_a_row >= GIVE_UP_AFTER:
            raise BackendError(
                f"{self.url} failed {GIVE_UP_AFTER} requests in a row, the last with {error}: what it answered is "
                "kept; when it is well again, the same command continues from here"
            )
        return Completion(text="", n_tokens=0, finish="error", error=error)

    def _completion(self, answer: replies.Answer) -> Completion:
        if answer.text is None or not answer.ended:
            error = f"no text came back (finish_reason {one_line(answer.finish, 80)})"
            return Completion(text=answer.text or "", n_tokens=0, finish="error", error=error)
        finish: Finish = "length" if answer.finish == "length" else "stop"
        return Completion(text=answer.text, n_tokens=len(self._ids(answer.text)), finish=finish)

    def _check_ratio(self, prompt: Prompt, n_tokens: int | None) -> None:
        """BackendError when a short prompt was as long as the plain one; once per backend."""
        if self._ratio_is_honoured or prompt.ratio == 1 or self._is_raw(prompt) or n_tokens is None:
            return
        plain = self.tokenizer.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
        if n_tokens == len(self._ids(plain)) != len(prompt.token_ids):
            raise BackendError(
                f"{self.url} ignores compression_ratio for {self.model!r}: its chat template lacks the ratio; serve it "
                "with the adapter's chat_template.jinja (see `tokenskip doctor`), or set "
                "generate.options.endpoint=completions"
            )
        self._ratio_is_honoured = True

    def _is_raw(self, prompt: Prompt) -> bool:
        return self.endpoint == "completions" or bool(prompt.prefill)

    async def _probe(self, client: Client, prompt: Prompt) -> Literal["ids", "text"]:
        """How `/v1/completions` takes exactly our tokens, judged by `usage`: as ids, else as text."""
        counts = []
        forms: tuple[Literal["ids", "text"], ...] = ("ids", "text")
        for form in forms:
            body = {"model": self.model, "prompt": self._raw(prompt, form), "max_tokens": 1, "temperature": 0}
            try:
                reply = await client.ask(f"{self.url}/completions", body)
            except NoReply as error:
                if error.gone:
                    raise self._gone(error) from None
                counts.append(str(error))
                continue
            if reply.status != 200:
                counts.append(reply.message)
                continue
            n_tokens = replies.tokens(reply.body, "prompt_tokens")
            if n_tokens in (None, len(prompt.token_ids)):
                return form
            counts.append(f"{n_tokens} tokens")
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
        if kwargs := {**self.template_kwargs, **dict(prompt.template_kwargs), **ratio_kwargs(prompt.ratio)}:
            given = payload.get("chat_template_kwargs", {})
            unmapped = self._unmapped if prompt.ratio != 1 else {}
            payload["chat_template_kwargs"] = {**given, **kwargs, **unmapped}
        return payload

    def _common(self, prompt: Prompt, sampling: Sampling, i: int) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "model": self.model,
            "max_tokens": prompt.max_new_tokens or sampling.max_new_tokens,
            "temperature": sampling.temperature,
            **self.extra,
        }
        if sampling.temperature > 0:  # its own seed: repeated samples of a question differ
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


def _switch_off_map(adapter: Path | None) -> dict[str, bool]:
    """What a request says so that the server writes its ratio as it is, where the served template may map ratios.

    Prompts here carry the ratio that is to be written. The template of an adapter moves it to a trained ratio, or
    through the map of `tokenskip calibrate`: a calibrated ratio once more, and those of the other arms as well.

    Raises:
        ConfigError: the map in the template is of an earlier version and cannot be switched off.
    """
    file = adapter / "chat_template.jinja" if adapter else None
    template = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    if UNMAPPED in template:
        return {UNMAPPED: True}
    if read_map(template):
        raise ConfigError(
            f"{file} maps ratios, and so would map those of an evaluation again: run `tokenskip calibrate` once more, "
            "and start the server with the new template"
        )
    return {}


def _weights_of(adapter: Path | None) -> str:
    """Which weights a folder holds: the adapter of a run, or of the control run inside it."""
    if adapter is None:
        return "base"
    folder = adapter.absolute().parent.name
    if folder.startswith("round-"):
        return folder.replace("-", "_")
    names = {"control-random": "control", "control-full-chain": "full_chain", "control-longer": "longer"}
    return {**names, "control-preference": "preference", "grpo": "grpo"}.get(folder, "adapter")


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
