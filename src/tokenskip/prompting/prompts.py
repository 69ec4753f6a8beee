"""The only place where a prompt is rendered: for training, for our backends and for any server.

A prompt is the question in the recipe's words, rendered by the model's chat template under the ratio control
(`chat_template`) and the recipe's own template arguments (`prompt.template_kwargs`, `prompt.date`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenskip.config import PromptConfig
from tokenskip.errors import ModelError
from tokenskip.prompting.chat_template import (
    TemplateSettings,
    add_ratio_control,
    has_ratio_control,
    read_settings,
    reads_effort,
    render,
    set_effort,
    set_ratio_map,
)
from tokenskip.prompting.chat_template import ratio_kwargs as ratio_kwargs
from tokenskip.ratio import read as read_map
from tokenskip.ratio import spell
from tokenskip.types import Completion, Message, Prompt


class Prompts:
    """Questions -> prompts for one tokenizer and one `PromptConfig`; gives the tokenizer's template the ratio control.

    Raises:
        ModelError: a tokenizer without an eos token, or a template that cannot render the configured turns.
    """

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        if not tokenizer.eos_token:
            raise ModelError(
                'the tokenizer has no eos token, so no completion could end: add "eos_token" to tokenizer_config.json'
            )
        settings = TemplateSettings(template_kwargs=config.template_kwargs, date=config.date, spelling=config.spelling)
        self.tokenizer = add_ratio_control(tokenizer, config.delimiter, settings)
        if config.effort and reads_effort(tokenizer.chat_template):
            raise ModelError(
                "prompt.effort: the model's own chat template reads reasoning_effort, and would get the word as well: "
                "leave the setting out; `tokenskip effort RUN --over` can insist after training"
            )
        tokenizer.chat_template = set_ratio_map(tokenizer.chat_template, None)  # ours ask for the very ratio
        self.config = config
        self.template: str | None = None  # the tokenizer's own
        self.delimiter: str = tokenizer.eos_token if config.delimiter == "eos_token" else config.delimiter
        # a template that refuses the system turn says so before a model loads
        rendered = render(self.tokenizer, self.messages("Which?"), 1.0, trial=True)
        if config.answer == "think" and rendered.rstrip().endswith(closing_tag(config)):
            raise ModelError(
                "the chat template closes the think block before the model writes, so there is no chain inside it: "
                "set prompt.answer to trigger or boxed, or switch thinking on (prompt.template_kwargs)"
            )

    def messages(self, question: str, instruction: str = "", **around: Any) -> tuple[Message, ...]:
        """The chat turns of a question; see `chat_turns`."""
        return chat_turns(self.config, question, instruction, **around)

    def text(
        self, messages: Sequence[Message], ratio: float = 1.0, template_kwargs: Mapping[str, Any] | None = None
    ) -> str:
        """The rendered prompt, up to and including the beginning of the assistant's turn."""
        return render(self.tokenizer, messages, ratio, self.template, template_kwargs=template_kwargs)

    def served_by(self, folder: Path) -> Prompts:
        """The same prompts as a server renders them by the template that was saved with an adapter, if it is ours.

        That template keeps to the trained ratios, or asks through the map of `tokenskip calibrate`.
        """
        file = folder / "chat_template.jinja"
        template = file.read_text(encoding="utf-8") if file.exists() else None
        served = copy(self)
        served.template = template if has_ratio_control(template) else None
        return served

    def prompted(self, ratio: float) -> float:
        """The ratio that a prompt asks for when `ratio` is asked: another one where the served template says so."""
        if self.template is None or ratio == 1:
            return ratio
        mapped = read_map(self.template)
        return mapped.prompted(ratio) if mapped else read_settings(self.template).nearest(ratio)

    def trained(self) -> str:
        """Why the served template asks for another ratio."""
        if read_map(self.template or ""):
            return "the map of `tokenskip calibrate`"
        return f"the model was trained on {spell(read_settings(self.template).ratios)}"

    def save_tokenizer(self, folder: Path, ratios: tuple[float, ...]) -> None:
        """Save the tokenizer beside a model trained on `ratios`, its template as `prompt.untrained` says."""
        exact = self.tokenizer.chat_template
        kept = () if self.config.untrained == "pass" else ratios
        settings = replace(read_settings(exact), ratios=kept, strict=self.config.untrained == "refuse")
        try:
            add_ratio_control(self.tokenizer, self.config.delimiter, settings)
            self.tokenizer.chat_template = set_effort(self.tokenizer.chat_template, self.config.effort)
            self.tokenizer.save_pretrained(str(folder))
        finally:
            self.tokenizer.chat_template = exact

    def prompt(
        self,
        question: str,
        ratio: float = 1.0,
        *,
        instruction: str = "",
        system: str = "",
        shots: Sequence[tuple[str, str]] = (),
        prefill: str = "",
        cap: int | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """A prompt with the token ids that are the same in training and inference."""
        messages = self.messages(question, instruction, system=system, shots=shots)
        ids = self.ids(self.text(messages, ratio, template_kwargs)) + (self.ids(prefill) if prefill else [])
        return Prompt(
            messages=messages,
            ratio=ratio,
            token_ids=tuple(ids),
            prefill=prefill,
            max_new_tokens=cap,
            template_kwargs=tuple((template_kwargs or {}).items()),
        )

    def with_prefill(self, prompt: Prompt, completion: Completion) -> Completion:
        """The completion with what the assistant's turn was made to begin with."""
        if not prompt.prefill or completion.error:
            return completion
        n_tokens = completion.n_tokens + len(self.ids(prompt.prefill))
        return replace(completion, text=prompt.prefill + completion.text, n_tokens=n_tokens)

    def ids(self, text: str) -> list[int]:
        """Token ids of text that is rendered already: nothing is added."""
        encoded: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return encoded

    def completion_ids(self, text: str) -> list[int]:
        """Token ids of a completion to train on: the text and the end-of-sequence token."""
        return [*self.ids(text), self.tokenizer.eos_token_id]

    def forced_answer(self) -> str:
        """What a serving-side thinking budget appends to a chain that is cut off, so that an answer follows."""
        return {
            "trigger": f"\n\n{self.config.trigger}",
            "boxed": "\n\nThe final answer is \\boxed{",
            "think": f"\n{closing_tag(self.config)}\n\n",
        }[self.config.answer]


def chat_turns(
    config: PromptConfig,
    question: str,
    instruction: str = "",
    *,
    system: str = "",
    shots: Sequence[tuple[str, str]] = (),
) -> tuple[Message, ...]:
    """The chat turns of a question; `instruction` follows it, as prompt-only baselines do.

    `system` follows the recipe's own. `shots` are earlier turns, asked in the same words: (question, answer)
    of worked examples.
    """

    def asked(question: str) -> Message:
        content = config.template.replace("{question}", question)
        return {"role": "user", "content": f"{content} {instruction}" if instruction else content}

    said = "\n".join(filter(None, (config.system, system)))
    first = ({"role": "system", "content": said},) if said else ()
    earlier = [turn for shot in shots for turn in (asked(shot[0]), {"role": "assistant", "content": shot[1]})]
    return (*first, *earlier, asked(question))


def prompt_kwargs(config: PromptConfig, ratio: float = 1.0) -> dict[str, Any]:
    """The chat-template arguments of a prompt, as servers and training data pass them."""
    return {**config.template_kwargs, **ratio_kwargs(ratio)}


def worked(config: PromptConfig, shots: Sequence[tuple[str, str, str]]) -> tuple[tuple[str, str], ...]:
    """Worked examples (question, chain, answer) as turns whose answer has the recipe's format."""
    return tuple((question, chain + example_answer(config, answer)) for question, chain, answer in shots)


def closing_tag(config: PromptConfig) -> str:
    """The tag that ends a thought: the recipe's, else that of most families."""
    return config.think[1] if config.think else "</think>"


def example_answer(config: PromptConfig, gold: str) -> str:
    """How a completion gives the answer `gold` in the recipe's format: what follows the chain of thought."""
    return {
        "trigger": f"\n\n{config.trigger.strip()} {gold}.",
        "boxed": f"\n\nThe final answer is \\boxed{{{gold}}}.",
        "think": f"\n{closing_tag(config)}\n\nThe final answer is \\boxed{{{gold}}}.",
    }[config.answer]
