"""How each engine serves a trained model so that the ratio works: what to make first, the command, what to know.

tokenskip serve runs/NAME --engine llamacpp
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenskip.client import lora_rank
from tokenskip.models.loading import resolve_model
from tokenskip.prompting.effort import read_effort, spell_effort
from tokenskip.ratio import Ratio
from tokenskip.serving.budgets import Budget, llamacpp_options, vllm_options
from tokenskip.serving.local import model_name
from tokenskip.serving.merge import Trained
from tokenskip.serving.ollama import ratio_tags
from tokenskip.serving.template import TEMPLATE, template_of

HOST = "127.0.0.1"
"""This machine only: vLLM's own default is every network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`before`: commands that make what the server loads, from `folder`; `merges`: whether that is a merge alone."""

    command: list[str]
    name: str
    port: int
    folder: Path
    before: Sequence[Sequence[str]] = ()
    merges: bool = False
    notes: Sequence[str] = ()


def plan_for(
    engine: str,
    trained: Trained,
    run: str,
    base: str | None,
    folder: Path | None,
    port: int,
    budgets: Mapping[float, Budget],
) -> Plan:
    """What `engine` needs for a model; `run` and `base` are what the user typed, `folder` is where the model goes."""
    of_base = ["--base", base] if base else []
    defaults = trained.config.prompt.template_kwargs
    effort = read_effort(template_of(trained.folder))
    notes = [f"the template's defaults, which a client may override: {json.dumps(defaults)}"] if defaults else []
    notes += [f"reasoning_effort: {spell_effort(effort)}"] if effort else []
    beside = trained.run or Path()
    if engine in LOCAL:
        to, plan_of = LOCAL[engine]
        folder = folder or beside / to
        export = ["tokenskip", "export", run, "--to", to, "-o", str(folder), *of_base]
        plan = plan_of(trained, folder, port)
        limits = llamacpp_options(trained, budgets) if engine == "llamacpp" else []
        before = [*([] if folder.exists() else [export]), *plan.before]
        return replace(plan, command=[*plan.command, *limits], before=before, notes=[*notes, *plan.notes])
    if engine == "vllm":
        command = _vllm(trained, port) + vllm_options(trained, budgets)
        name = command[2] if trained.is_model else "tokenskip"
        return Plan(command=command, name=name, port=port, folder=trained.folder, notes=notes)
    folder = folder or (trained.folder if trained.is_model else beside / "merged")
    merges = not folder.exists()
    command = {
        "transformers": ["transformers", "serve", str(folder.absolute()), "--port", str(port)],  # it loads no adapter
        "sglang": [
            *("sglang", "serve", "--model-path", str(folder), "--chat-template", str(folder / TEMPLATE)),
            *("--host", HOST, "--port", str(port)),
        ],
    }[engine]
    return Plan(
        command=command,
        name=command[2] if engine == "transformers" else str(folder),
        port=port,
        folder=folder,
        before=[["tokenskip", "merge", run, "-o", str(folder), *of_base]] if merges else [],
        merges=merges,
        notes=notes,
    )


def _vllm(trained: Trained, port: int) -> list[str]:
    """vLLM with the adapter beside its base; it reads no template from an adapter's folder, so it must be named."""
    where = ["--host", HOST, "--port", str(port)]
    if trained.is_model:
        return ["vllm", "serve", str(trained.folder), *where]
    settings = json.loads((trained.folder / "adapter_config.json").read_text(encoding="utf-8"))
    model = resolve_model(trained.config.model.path)
    command = ["vllm", "serve", model, "--enable-lora", "--max-lora-rank", str(lora_rank(settings["r"]))]
    command += ["--lora-modules", f"tokenskip={trained.folder}"]
    command += ["--chat-template", str(trained.folder / TEMPLATE), *where]
    return command + (["--revision", trained.config.model.revision] if trained.config.model.revision else [])


def _llamacpp(trained: Trained, folder: Path, port: int) -> Plan:
    """The template is in the GGUF; it is named all the same, for builds that would take another."""
    file = next(iter(sorted(folder.glob("*.gguf"))), folder / f"{model_name(trained)}-f16.gguf")
    command = ["llama-server", "-m", str(file), "--jinja", "--chat-template-file", str(folder / TEMPLATE)]
    return Plan(command=[*command, "--host", HOST, "--port", str(port)], name=str(file), port=port, folder=folder)


def _ollama(trained: Trained, folder: Path, port: int) -> Plan:
    """Ollama has a port of its own, and takes a model by `create`."""
    tag = str(Ratio(ratio_tags(template_of(trained.folder))[0]))
    name = f"{model_name(trained)}:{tag}"
    notes = [
        f"a ratio is a tag: {name} answers at {tag}; `tokenskip export` names the others",
        f"once it runs: {shlex.join(['ollama', 'create', name, '-f', str(folder / f'Modelfile-{tag}')])}",
    ]
    return Plan(command=["ollama", "serve"], name=name, port=11434, folder=folder, notes=notes)


def _mlx(trained: Trained, folder: Path, port: int) -> Plan:
    """mlx-lm loads what it has converted."""
    converted = str(folder / "mlx")
    convert = ["mlx_lm.convert", "--hf-path", str(folder / "model"), "--mlx-path", converted]
    return Plan(
        command=["mlx_lm.server", "--model", converted, "--host", HOST, "--port", str(port)],
        name=converted,
        port=port,
        folder=folder,
        before=[] if Path(converted).exists() else [convert],
        notes=["mlx-lm runs on a Mac; we have not run it"],
    )


LOCAL: dict[str, tuple[str, Callable[[Trained, Path, int], Plan]]] = {
    "llamacpp": ("gguf", _llamacpp),
    "ollama": ("ollama", _ollama),
    "mlx": ("mlx", _mlx),
}
"""Engine -> target of `tokenskip export`, and its plan."""
