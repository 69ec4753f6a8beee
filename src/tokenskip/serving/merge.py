"""An adapter folded into its model: a plain model folder that any server loads, ratio control in its chat template.

The folder is read back before it is moved in place, and its logits are compared with those of the model with the
adapter on it: a fold that changed the model (a wrong base, a lossy dtype) is refused.

    tokenskip merge runs/NAME -o merged
"""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenskip.config import ModelConfig, RunConfig, check_config
from tokenskip.embedded import adapter_path
from tokenskip.errors import ModelError, RunError
from tokenskip.models.loading import EMBEDDED, check_adapter, is_whole, load_model, resolve_model
from tokenskip.models.weights import read_settings, reading
from tokenskip.prompting.chat_template import has_ratio_control
from tokenskip.prompting.prompts import Prompts
from tokenskip.storage.outputs import new_folder
from tokenskip.storage.store import ADAPTER, TRAIN, is_run, read_manifest, read_rows
from tokenskip.trust import check_trust

N_PROBES = 4
LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}
"""Root mean square of the logits' differences over that of the logits: what rounding weights once explains."""

_QUESTION = "Tom has 12 apples. Then he buys 5 more of them. How many apples does he have now?"
_ANSWER = "Tom starts with 12 apples. He buys 5 more, so 12 + 5 = 17.\n\nThe final answer is 17."


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained adapter (or, after full fine-tuning, a model) and the settings it was trained under."""

    folder: Path
    config: RunConfig
    run: Path | None

    @property
    def is_model(self) -> bool:
        """Whether the folder holds a whole model already."""
        return is_whole(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near merged logits are to the adapter's: relative root mean square, and share of equal top tokens."""

    difference: float
    same_top: float
    n_tokens: int


def find_adapter(source: str, base: str | None = None, dtype: str | None = None) -> Trained:
    """The adapter of a run folder, of an adapter folder, or the one that ships ('embedded').

    `base` and `dtype` override the model that it belongs to and the precision it is loaded in.

    Raises:
        RunError: there is no adapter there; ModelError: it is not whole, or does not fit its base model;
            ConfigError: the run would run code that is not trusted.
    """
    folder = adapter_path() if source == EMBEDDED else Path(source).expanduser()
    run = next((candidate for candidate in (folder, folder.parent) if is_run(candidate)), None)
    if run == folder:
        folder = folder / ADAPTER
        if not folder.exists():
            raise RunError(f"{source} has no {ADAPTER}/ yet: run `tokenskip train {source}` first")
    elif not any((folder / name).exists() for name in ("adapter_config.json", "config.json")):
        raise RunError(f"{source} is neither a run folder nor an adapter: give a run, its adapter/, or 'embedded'")
    values: dict[str, Any] = read_manifest(run)["config"] if run else {}
    if base or not run:
        values["model"] = {**values.get("model", {}), "path": base or _base_named_in(folder), "revision": None}
    if dtype:
        values["model"] = {**values["model"], "dtype": dtype}
    config = check_config(values, str(run or source))
    check_trust(config, (), str(run or source), recipe=False)
    trained = Trained(folder=folder, config=config, run=run)
    check_adapter(trained.folder, trained.config.model)
    return trained


def _base_named_in(folder: Path) -> str:
    """The base model that an adapter names; the folder itself where it holds a whole model."""
    if is_whole(folder):
        return str(folder)
    named = read_settings(str(folder), "adapter_config.json").get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelError(f"{folder / 'adapter_config.json'} does not name its base model: give it by --base")
    return named


def merge(trained: Trained, out: Path) -> Agreement | None:
    """Write the merged model and its tokenizer to `out`; how well its logits agree, None where nothing was to merge.

    Raises:
        RunError: `out` is there already or cannot be written; ModelError: merged and adapter logits disagree.
    """
    with new_folder(out) as draft:
        if not trained.is_model:
            return _merge_into(trained, draft)
        for file in _model_files(trained.folder):
            shutil.copyfile(file, draft / file.name)
        return None


def _model_files(folder: Path) -> list[Path]:
    """The files of a model, and nothing else that lies beside them."""
    kinds = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tsv", ".md")
    return [file for file in sorted(folder.iterdir()) if file.suffix in kinds and file.is_file()]


def _merge_into(trained: Trained, draft: Path) -> Agreement:
    from transformers import AutoTokenizer

    source = trained.config.model.model_copy(update={"dtype": _stored_dtype(trained.config.model)})
    with reading(str(trained.folder), "the adapter's tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(str(trained.folder), trust_remote_code=source.trust_remote_code)
    template = tokenizer.chat_template
    probes = _probes(trained, Prompts(tokenizer, trained.config.prompt))
    if has_ratio_control(template):
        tokenizer.chat_template = template  # as trained: an adapter alone does not say what its delimiter was
    model = load_model(source, trained.folder, fold=False)
    expected = _logits(model, probes)
    model = model.merge_and_unload(safe_merge=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    tokenizer.save_pretrained(str(draft))
    del model
    gc.collect()
    agreement = _compare(
        expected, _logits(load_model(source.model_copy(update={"path": str(draft), "revision": None})), probes)
    )
    if not agreement.difference <= LARGEST_DIFFERENCE[source.dtype]:
        raise ModelError(
            f"merged and adapter logits differ by {agreement.difference:.2%} (at most "
            f"{LARGEST_DIFFERENCE[source.dtype]:.2%} in {source.dtype}): nothing was written; try "
            "--dtype float32"
        )
    return agreement


def _stored_dtype(config: ModelConfig) -> str:
    """The dtype to merge in: the configured one, else that of the stored weights, so that the folder is no larger."""
    if config.dtype != "auto":
        return config.dtype
    from transformers import AutoConfig

    source = resolve_model(config.path)
    with reading(config.path, "its configuration cannot be read"):
        stored = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        ).dtype
    name = str(stored).rpartition(".")[2]
    return name if name in LARGEST_DIFFERENCE else "float32"


def _probes(trained: Trained, prompts: Prompts) -> list[list[int]]:
    """Token ids to compare on: rows the adapter was trained on, where they are at hand; whole and short prompts."""
    if trained.run and (trained.run / TRAIN).exists():
        rows = islice(read_rows(trained.run / TRAIN), N_PROBES)
        return [
            prompts.ids(prompts.text(row["prompt"], row["ratio"]) + row["completion"][0]["content"]) for row in rows
        ]
    messages = prompts.messages(_QUESTION)
    return [prompts.ids(prompts.text(messages, ratio) + _ANSWER) for ratio in (1.0, 0.8, 0.5)]


def _logits(model: Any, probes: list[list[int]]) -> list[Any]:
    """Logits of each probe, (tokens, vocabulary), in float32 on the CPU."""
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in probes]


def _compare(expected: list[Any], measured: list[Any]) -> Agreement:
    import torch

    before, after = torch.cat(expected), torch.cat(measured)
    difference = float((after - before).square().mean().sqrt() / before.square().mean().sqrt())
    same = float((after.argmax(-1) == before.argmax(-1)).float().mean())
    return Agreement(difference=difference, same_top=same, n_tokens=len(before))
