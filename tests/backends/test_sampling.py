"""Sampled rows: as many texts as samples, the same ones in any batch, drawn from the model's own distribution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokenskip.backends._journal import Journal
from tokenskip.backends.hf import HfBackend, _row_sampler, _uniforms
from tokenskip.config import load_recipe
from tokenskip.evaluation.evaluate import answering, timing
from tokenskip.evaluation.shorten import Item
from tokenskip.generation.generate import ask, repeat
from tokenskip.models.loading import load_model, load_tokenizer
from tokenskip.pipeline import Run
from tokenskip.types import Completion, Problem, Prompt, Sampling

SAMPLING = Sampling(max_new_tokens=12, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def backend(model_folder: Path) -> Any:
    config = load_recipe(None, [f"model.path={model_folder}", "model.device=cpu"]).model
    return HfBackend(load_model(config), load_tokenizer(config), batch_size=4)


def prompts_of(backend: HfBackend, problems: list[Problem]) -> list[Prompt]:
    return [Prompt(messages=(), token_ids=tuple(backend.tokenizer(one.question)["input_ids"])) for one in problems]


@pytest.mark.parametrize("own_decoding", [True, False])
def test_every_sample_is_another_text_whatever_the_batch_is(
    backend: HfBackend, own_decoding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenskip.backends._decode.can_decode", lambda _: own_decoding)
    problems = list(repeat([Problem(id="algebra#7", question="Tom has 12 apples.", gold="1")], 12))
    prompts = prompts_of(backend, problems)
    texts = [one.text for one in ask(problems, prompts, backend, SAMPLING)]
    assert len(set(texts)) == 12
    assert [one.text for one in ask(problems[5:7], prompts[5:7], backend, SAMPLING)] == texts[5:7]
    alone = HfBackend(backend.model, backend.tokenizer, batch_size=1)
    assert [one.text for one in ask(problems, prompts, alone, SAMPLING)] == texts
    assert [one.text for one in ask(problems, prompts, backend, replace(SAMPLING, seed=4))] != texts
    bare = [one.text for one in backend.generate(prompts, SAMPLING)]  # without seeds of their own
    assert len({*bare[:4]}) == 4


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    n = 4000
    likely = torch.tensor([0.5, 0.05, 0.3, 0.15])
    uniforms = [_uniforms(Prompt(messages=(), seed=seed), 0, 1, SAMPLING) for seed in range(n)]

    def drawn(**changes: Any) -> list[float]:
        sampler = _row_sampler(torch.stack(uniforms, 1), replace(SAMPLING, **changes))
        chosen = sampler(torch.zeros(n, 1), likely.log().expand(n, 4)).argmax(-1)
        return (torch.bincount(chosen, minlength=4) / n).tolist()

    assert drawn() == pytest.approx([0.5, 0.05, 0.3, 0.15], abs=0.03)
    squared = likely**2 / (likely**2).sum()
    assert drawn(temperature=0.5) == pytest.approx(squared.tolist(), abs=0.03)
    assert drawn(top_p=0.7) == pytest.approx([0.625, 0, 0.375, 0], abs=0.03)
    assert drawn(top_p=0.01) == [1.0, 0, 0, 0]


def test_what_comes_from_the_journal_has_no_time(tmp_path: Path, model_folder: Path) -> None:
    journal = Journal(tmp_path / "requests", ["a"])
    journal.note("a", Completion(text="1", n_tokens=1))
    resumed = Journal(tmp_path / "requests", ["a"]).read()["a"]
    assert resumed == Completion(text="1", n_tokens=1, resumed=True)

    class Resumed:
        first = True

        def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Completion]:
            return [replace(resumed, resumed=self.first and not i) for i in range(len(prompts))]

        def close(self) -> None: ...

    items = [Item(Problem(id=id, question="1?", gold="1")) for id in "abc"]
    config = load_recipe(None, [f"model.path={model_folder}"])
    with Run(tmp_path / "run", config) as run:
        backend = Resumed()
        run._backends["base"] = backend  # type: ignore[assignment]
        original = config.known_arms()["original"]
        for backend.first, n_batched, n_single in ((True, 0, 0), (False, 1, 2)):
            rows, times = answering(run, original, 1.0)(items)
            assert (len(rows), len(times)) == (3, n_batched)
            assert len(timing(run, original, 1.0)(items)) == n_single
