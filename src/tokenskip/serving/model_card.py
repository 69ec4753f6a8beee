"""A run's model card.

Every figure in the card is read from `results.json`; the prose says what the run was and what it does not show.

    tokenskip push runs/NAME OWNER/NAME --dry-run
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tokenskip import plugins
from tokenskip.client import lora_rank
from tokenskip.config import RunConfig
from tokenskip.errors import ConfigError
from tokenskip.evaluation.budgets import QUANTILE
from tokenskip.evaluation.comparisons import headline_rows, main_arm, original_of
from tokenskip.evaluation.schema import ArmResult, Results
from tokenskip.models.gguf import SMOLLM2
from tokenskip.models.loading import EMBEDDED
from tokenskip.prompting.effort import read_effort, spell_effort
from tokenskip.ratio import Ratio, spell
from tokenskip.report.tables import markdown_table
from tokenskip.report.text import num, pct, points, signed
from tokenskip.serving.budgets import budgets_of
from tokenskip.serving.merge import Trained
from tokenskip.serving.template import TEMPLATE

HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_PRIVATE = {"url", "served", "extra", "concurrency", "retries", "timeout_s"}


def base_model_of(config: RunConfig, given: str | None, *, whole: bool) -> str | None:
    """The hub id of the model that was fine-tuned; None for a whole model that has none.

    Raises:
        ConfigError: an adapter whose base is a folder here, so that nobody else could load it.
    """
    named = given or config.model.path
    if HUB_ID.fullmatch(named) and (given or not Path(named).exists()):
        return named
    if given:
        raise ConfigError(f"--base-model is a hub id like Qwen/Qwen2.5-7B-Instruct; given: {given!r}")
    if whole:
        return None
    what = (
        "the model that ships with tokenskip"
        if named == EMBEDDED
        else named
        if named == SMOLLM2
        else f"the folder {named}"
    )
    raise ConfigError(
        f"the adapter's base is {what}, which others cannot load: name its hub id by --base-model OWNER/NAME, or "
        "upload the whole model by --merged"
    )


def write_card(trained: Trained, results: Results, repo: str, base: str | None, *, whole: bool) -> str:
    """The model card, with the hub's metadata in front."""
    config = trained.config
    parts = [
        f"---\n{_metadata(config, results, repo, base, whole=whole)}---\n",
        f"# {repo.rpartition('/')[2]}\n",
        _about(config, base, whole=whole),
        f"## Results\n\n{_results(results)}",
        f"## How to call it\n\n{_usage(config, repo, base, whole=whole)}{_other_limits(trained)}",
        f"## How it was made\n\n{_recipe(config, results)}",
        f"## Limits\n\n{_limits(config, results)}",
    ]
    return "\n".join(parts)


def _metadata(config: RunConfig, results: Results, repo: str, base: str | None, *, whole: bool) -> str:
    """The hub's metadata as YAML: what was trained, on what, and two numbers for each ratio."""
    from huggingface_hub import EvalResult, ModelCardData

    train, test = _datasets(config)
    dataset = test or config.task.name
    entries = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=f"{dataset} (test)",
            dataset_config=f"compression_ratio {arm.ratio}",
            metric_type=kind,
            metric_name=f"{what} at compression_ratio {arm.ratio}",
            metric_value=value,
        )
        for arm in _ours(results)
        for kind, what, value in (
            ("accuracy", "accuracy", round(arm.accuracy or 0, 4)),
            ("cot-tokens", "mean CoT tokens", round(arm.cot_tokens_mean or 0, 2)),
        )
    ]
    relation: dict[str, Any] = {"base_model_relation": "finetune" if whole else "adapter"} if base else {}
    data = ModelCardData(
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        base_model=base,
        datasets=[train] if train else None,
        tags=["tokenskip", "chain-of-thought", "efficient-reasoning"],
        model_name=repo.rpartition("/")[2],
        eval_results=entries or None,
        **relation,
    )
    return str(data.to_yaml()) + "\n"


def _about(config: RunConfig, base: str | None, *, whole: bool) -> str:
    kind = "model" if whole else "LoRA adapter"
    own = "the embedded model of tokenskip" if config.model.path == EMBEDDED else "a model that is not on the hub"
    of = f"[{base}](https://huggingface.co/{base})" if base else own
    return (
        f"A {kind} that lets {of} write a chosen share γ of its usual chain of thought (CoT). It was trained with\n"
        "tokenskip after TokenSkip ([Xia et al., EMNLP 2025](https://arxiv.org/abs/2502.12067)): the model's own\n"
        "correct chains, pruned to γ of their tokens, after `question <eos> γ <eos>`. γ is chosen per request.\n"
    )


def _results(results: Results) -> str:
    original = original_of(results.arms)
    n = num(original.n_problems if original else 0)
    text = (
        f"The same {n} problems for every row, accuracy with its 95% interval; *achieved ratio* is mean CoT tokens\n"
        "over the original's.\n\n"
        f"{markdown_table(headline_rows(results.arms))}\n"
    )
    shorter = [arm for arm in _ours(results) if (arm.ratio or 1) < 1 and arm.difference is not None]
    if shorter:
        text += "Differences to the original on the same problems, in points of accuracy:\n\n"
        for arm in shorter:
            change, low, high = (
                signed(points(value)) for value in (arm.difference, arm.difference_low, arm.difference_high)
            )
            text += f"- γ = {arm.ratio}: {change} [{low}, {high}], {num(arm.cot_tokens_mean, 1)} CoT tokens\n"
    return text + ("" if not results.warnings else "\n" + "".join(f"- ! {warning}\n" for warning in results.warnings))


def _usage(config: RunConfig, repo: str, base: str | None, *, whole: bool) -> str:
    turn = config.prompt.template.replace("{question}", "QUESTION")
    messages = [{"role": "user", "content": turn}]
    if config.prompt.system:
        messages.insert(0, {"role": "system", "content": config.prompt.system})
    loader = "AutoModelForCausalLM" if whole else "AutoPeftModelForCausalLM"
    package = "transformers" if whole else "peft"
    served = (
        f"vllm serve {repo}"
        if whole
        else f"vllm serve {base} --enable-lora --max-lora-rank {lora_rank(config.train.rank)} \\\n"
        f"    --lora-modules {repo}=ADAPTER_FOLDER --chat-template ADAPTER_FOLDER/chat_template.jinja"
    )
    trained = spell(config.prune.ratios)
    others = {
        "nearest": "another ratio is prompted as the nearest of these",
        "refuse": "the template refuses any other",
        "pass": "any other is passed on, and the model may not follow it",
    }[config.prompt.untrained]
    fixed = [f"`{name}` is `{json.dumps(value)}`" for name, value in config.prompt.template_kwargs.items()]
    fixed += [f"the date is {config.prompt.date}"] if config.prompt.date else []
    defaults = f" As in training, {', '.join(fixed)} unless a caller says otherwise." if fixed else ""
    return f"""The ratio is an argument of the chat template; without it, or with 1, the prompt is what it was before.
Trained ratios: {trained}; {others}, unless the template holds a map of `tokenskip calibrate`.{defaults}

```python
from {package} import {loader}
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = {loader}.from_pretrained("{repo}")
messages = {json.dumps(messages, ensure_ascii=False)}
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, compression_ratio="0.6", return_dict=True, return_tensors="pt"
)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens={config.generate.max_new_tokens})[0]))
```

On a server, with the template named (vLLM reads none from an adapter's folder):

```sh
{served}
```

```python
client.chat.completions.create(
    model="{repo}", messages=messages, extra_body={{"chat_template_kwargs": {{"compression_ratio": "0.6"}}}}
)
```
"""


def _other_limits(trained: Trained) -> str:
    """The words of `reasoning_effort`, and the token budgets, where there are such."""
    file = trained.folder / TEMPLATE
    effort = read_effort(file.read_text(encoding="utf-8") if file.is_file() else None)
    text = ""
    if effort:
        text += (
            f"\n`reasoning_effort` is a second name of the ratio: {spell_effort(effort)}.\n"
            "`compression_ratio` wins over it, and another word changes nothing.\n"
        )
    if budgets := budgets_of(trained):
        rows = [[str(Ratio(ratio)), str(one.chain), str(one.answer)] for ratio, one in budgets.items()]
        text += (
            f"\nThe ratio is a wish, a server's own limit a guard against loops. {QUANTILE:.0%} of answers that end\n"
            "need no more tokens than these. The limit is `max_tokens`; for thinking inside tags vLLM has\n"
            "`thinking_token_budget`, and llama.cpp `--reasoning-budget`:\n\n"
            + "".join(f"| {' | '.join(row)} |\n" for row in (["γ", "chain", "with the answer"], ["--:"] * 3, *rows))
        )
    return text


def _recipe(config: RunConfig, results: Results) -> str:
    funnel = "; ".join(f"{step.count:,} {step.reason}" for step in results.funnel)
    settings = _differing(config.model_dump(mode="json"), RunConfig().model_dump(mode="json"))
    settings.pop("evaluate", None)
    model = settings.get("model", {})
    if "path" in model and Path(model["path"]).exists():
        model["path"] = Path(model["path"]).name
    for key in ("train", "test"):
        if Path(str(settings.get("task", {}).get(key) or "")).suffix:
            settings["task"][key] = Path(settings["task"][key]).name
    options = settings.get("generate", {}).get("options", {})
    for key in _PRIVATE & options.keys():
        del options[key]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items() if version)
    return (
        f"Data: {funnel}.\n\nSettings that differ from tokenskip's defaults (method {config.train.method}, rank "
        f"{config.train.rank}, learning rate {config.train.learning_rate:g}, epochs {config.train.epochs:g}, scorer "
        f"{config.score.scorer}):\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)}```\n\n"
        f"Versions: {versions}.\n"
    )


def _limits(config: RunConfig, results: Results) -> str:
    decoding = f"temperature {config.evaluate.temperature:g}" if config.evaluate.temperature else "greedy decoding"
    lines = [f"One seed ({config.seed}), {decoding}, one set of problems; other questions were not tried."]
    drift = [(abs(arm.ratio_error), arm) for arm in _ours(results) if arm.ratio_error is not None]
    if drift:
        worst = max(drift, key=lambda pair: pair[0])[1]
        lines.append(
            f"The ratio asked for is not the ratio written: at γ = {worst.ratio} it was "
            f"{num(worst.achieved_ratio, 2)}, the largest deviation."
        )
    if original := original_of(results.arms):
        lines.append(f"The model before training solved {pct(original.accuracy)} of these problems.")
    lines.append("A pruned chain reads worse, and may leave out a step or a word that a reader would need.")
    if config.model.path == EMBEDDED:
        lines.append("The base is a tiny model that knows one kind of story: any other question gets nonsense.")
    return "".join(f"- {line}\n" for line in lines)


def _ours(results: Results) -> list[ArmResult]:
    """The rows of the arm that the model was trained for."""
    main = main_arm(results.arms)
    return [arm for arm in results.arms if arm.arm == main]


def _datasets(config: RunConfig) -> tuple[str | None, str | None]:
    """Hub ids of the training and test problems, where they come from the hub."""
    sources = getattr(plugins.load("task", config.task.name, plugins.TASKS), "sources", {})

    def hub_id(split: str) -> str | None:
        named = str(getattr(config.task, split) or sources.get(split) or "").partition("@")[0].partition(":")[0]
        return named if HUB_ID.fullmatch(named) and not Path(named).exists() else None

    return hub_id("train"), hub_id("test")


def _differing(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, section by section."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict) and default:
            if inner := _differing(value, default):
                found[key] = inner
        elif value != default:
            found[key] = value
    return found
