"""The openai backend against a real server on a socket: ratios, storms, a death in the middle, and what it refuses."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, serving
from scripted_runs import ChainBackend, question, recipe

from tokenskip import cli
from tokenskip.backends.openai import GIVE_UP_AFTER, OpenAIBackend
from tokenskip.config import PromptConfig, load_recipe
from tokenskip.errors import BackendError, ConfigError
from tokenskip.pipeline import Run, evaluate, generate, grade, prune, score
from tokenskip.prompting.prompts import Prompts
from tokenskip.storage.store import JOURNAL
from tokenskip.types import Prompt, Sampling

SAMPLING = Sampling(max_new_tokens=200)


@pytest.fixture
def prompts(tokenizer: Any) -> Prompts:
    return Prompts(tokenizer, PromptConfig())


@pytest.fixture
def server(tokenizer: Any, prompts: Prompts) -> Iterator[ChatServer]:
    chains = ChainBackend(None, tokenizer)
    with serving(ChatServer(prompts.tokenizer, lambda prompt: chains._complete(prompt).text)) as running:
        yield running


def backend(server: ChatServer, tokenizer: Any, **options: Any) -> OpenAIBackend:
    return OpenAIBackend("tiny", tokenizer, **{"url": server.url, "concurrency": 4, **options})


def asked(prompts: Prompts, n: int, ratio: float = 1.0) -> list[Prompt]:
    return [prompts.prompt(question(a, 3), ratio) for a in range(11, 11 + n)]


def test_answers_come_in_order_and_the_ratio_gets_there(server: ChatServer, prompts: Prompts) -> None:
    wanted = asked(prompts, 9) + asked(prompts, 9, 0.5)
    done = backend(server, prompts.tokenizer).generate(wanted, SAMPLING)
    expected = ChainBackend(None, prompts.tokenizer).generate(wanted, SAMPLING)
    whole = [i for i, prompt in enumerate(wanted) if int(prompt.messages[-1]["content"].split()[2]) % 7]
    assert [done[i].text for i in whole] == [expected[i].text for i in whole]
    assert [done[i].n_tokens for i in whole] == [len(expected[i].token_ids) for i in whole]
    assert sum(one.n_tokens for one in done[9:]) < sum(one.n_tokens for one in done[:9])
    ratios = [body.get("chat_template_kwargs") for body in server.bodies]
    assert sorted(map(json.dumps, ratios)) == ["null"] * 9 + ['{"compression_ratio": "0.5"}'] * 9
    assert all(body["temperature"] == 0 and body["max_tokens"] == 200 and "seed" not in body for body in server.bodies)


def test_no_more_requests_at_once_than_asked_for(server: ChatServer, prompts: Prompts) -> None:
    engine = backend(server, prompts.tokenizer, concurrency=3)
    server.pause.clear()
    threading.Timer(0.5, server.pause.set).start()
    engine.generate(asked(prompts, 12), SAMPLING)
    assert server.most_busy == 3


def test_a_cap_is_a_cut_off_chain(server: ChatServer, prompts: Prompts) -> None:
    [one] = backend(server, prompts.tokenizer).generate(asked(prompts, 1), Sampling(max_new_tokens=7))
    assert (one.finish, one.n_tokens) == ("length", 7)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_storm_is_waited_out(server: ChatServer, prompts: Prompts, status: int) -> None:
    server.troubles = [status] * 20
    done = backend(server, prompts.tokenizer, retries=20).generate(asked(prompts, 6), SAMPLING)
    assert all(one.error is None for one in done)
    assert len(server.bodies) == 26


def test_a_prompt_that_keeps_failing_is_a_record(server: ChatServer, prompts: Prompts) -> None:
    wanted = asked(prompts, 20)
    poison = {wanted[3].messages[0]["content"]: 500, wanted[8].messages[0]["content"]: 400}
    server.trouble_of = lambda body: poison.get(body["messages"][0]["content"])
    done = backend(server, prompts.tokenizer, retries=2).generate(wanted, SAMPLING)
    assert [i for i, one in enumerate(done) if one.finish == "error"] == [3, 8]
    assert done[3].error == "HTTP 500: trouble 500"
    assert sum(body["messages"][0]["content"] == wanted[3].messages[0]["content"] for body in server.bodies) == 3
    assert sum(body["messages"][0]["content"] == wanted[8].messages[0]["content"] for body in server.bodies) == 1


def test_a_slow_answer_times_out(server: ChatServer, prompts: Prompts) -> None:
    engine = backend(server, prompts.tokenizer, retries=0, timeout_s=0.3)
    engine.generate(asked(prompts, 1), SAMPLING)
    server.pause.clear()
    [one] = engine.generate(asked(prompts, 1, 0.5), SAMPLING)
    server.pause.set()
    assert one.error == "no answer in 0.3 s"


def test_a_server_that_only_fails_ends_the_run(server: ChatServer, prompts: Prompts) -> None:
    server.trouble_of = lambda body: 500
    with pytest.raises(BackendError, match=rf"failed {GIVE_UP_AFTER} requests in a row.*the same command continues"):
        backend(server, prompts.tokenizer, retries=0).generate(asked(prompts, 30), SAMPLING)
    server.trouble_of = lambda body: 422
    with pytest.raises(BackendError, match="answered none of 3 requests: HTTP 422"):
        backend(server, prompts.tokenizer, retries=0).generate(asked(prompts, 3), SAMPLING)


def test_sampled_answers_have_seeds_of_their_own(server: ChatServer, prompts: Prompts) -> None:
    same = [prompts.prompt(question(12, 3))] * 4
    engine = backend(server, prompts.tokenizer)
    engine.generate(same, Sampling(temperature=0.7, top_p=0.9, seed=1))
    seeds = [body["seed"] for body in server.bodies]
    assert len(set(seeds)) == 4
    engine.generate(same, Sampling(temperature=0.7, top_p=0.9, seed=1))
    assert sorted(body["seed"] for body in server.bodies[4:]) == sorted(seeds)


def test_a_begun_answer_goes_as_our_own_tokens(server: ChatServer, prompts: Prompts) -> None:
    begun = prompts.prompt(question(12, 3), prefill="Well, 12")
    backend(server, prompts.tokenizer).generate([begun], SAMPLING)
    assert server.bodies[-1]["prompt"] == list(begun.token_ids)
    server.takes_ids = False  # as transformers serve
    backend(server, prompts.tokenizer).generate([begun], SAMPLING)
    assert server.prompt_ids(server.bodies[-1]) == list(begun.token_ids)
    assert isinstance(server.bodies[-1]["prompt"], str)
    server.keeps.remove("/v1/completions")
    with pytest.raises(BackendError, match=r"cannot take a prompt.*leave truncation_forced out of evaluate\.arms"):
        backend(server, prompts.tokenizer).generate([begun], SAMPLING)


def test_text_prompts_get_no_second_bos(server: ChatServer, prompts: Prompts, tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    server.takes_ids = False
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", tokenizer.convert_tokens_to_ids("<user>"))]
    )
    assert tokenizer("Well")["input_ids"][0] == tokenizer.convert_tokens_to_ids("<user>")
    begun = prompts.prompt(question(12, 3), prefill="Well, 12")
    backend(server, tokenizer).generate([begun], SAMPLING)
    assert server.prompt_ids(server.bodies[-1]) == list(begun.token_ids)


def test_endpoint_completions_renders_here(server: ChatServer, prompts: Prompts) -> None:
    wanted = asked(prompts, 3, 0.5)
    backend(server, prompts.tokenizer, endpoint="completions").generate(wanted, SAMPLING)
    sent = [body["prompt"] for body in server.bodies[1:]]
    assert sorted(sent) == sorted(list(one.token_ids) for one in wanted)  # requests under way at once come in any order


def test_a_template_that_ignores_the_ratio_is_noticed(server: ChatServer, prompts: Prompts, tokenizer: Any) -> None:
    from conftest import make_tokenizer

    server.tokenizer = make_tokenizer()  # the same tokens, the original template
    engine = backend(server, prompts.tokenizer)
    engine.generate(asked(prompts, 2), SAMPLING)
    with pytest.raises(BackendError, match="ignores compression_ratio for 'tiny'"):
        engine.generate(asked(prompts, 2, 0.5), SAMPLING)


def test_what_is_wrong_at_the_start(server: ChatServer, prompts: Prompts, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="does not serve 'other': it serves tiny"):
        backend(server, prompts.tokenizer, served="other")
    with pytest.raises(ConfigError, match="adapter: NAME"):
        OpenAIBackend("tiny", prompts.tokenizer, tmp_path / "run" / "adapter", url=server.url)
    with pytest.raises(ConfigError, match="no 'adaptor'"):
        backend(server, prompts.tokenizer, served={"adaptor": "x"})
    control = tmp_path / "run" / "control-random" / "adapter"
    named = {"base": "other", "control": f"tiny@{server.url}"}
    engine = OpenAIBackend("x", prompts.tokenizer, control, url="http://127.0.0.1:9", served=named)
    assert (engine.model, engine.url) == ("tiny", f"{server.url}/v1")
    server.stop()
    with pytest.raises(BackendError, match=r"no server answers at .*refused.*: start it"):
        backend(server, prompts.tokenizer)


def test_it_works_inside_a_running_loop(server: ChatServer, prompts: Prompts) -> None:
    import asyncio

    engine = backend(server, prompts.tokenizer)

    async def notebook() -> int:
        return len(engine.generate(asked(prompts, 2), SAMPLING))

    assert asyncio.run(notebook()) == 2


def served_recipe(folder: Path, model: Path, server: ChatServer, **options: Any) -> Path:
    settings = {"url": server.url, "served": "tiny", "retries": 1, "concurrency": 2, **options}
    return recipe(folder, model, generate={"backend": "openai", "batch_size": 2, "options": settings})


def test_a_death_in_the_middle_loses_nothing(
    server: ChatServer, tmp_path: Path, model_folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    """8 a window, 13 answers, then the socket closes: one line; a new server is asked for the missing ones only."""
    file = served_recipe(tmp_path, model_folder, server)
    server.die_after = 13
    arguments = ["tokenskip", "generate", str(tmp_path / "run"), "--recipe", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "the same command continues from here" in " ".join(capsys.readouterr().err.split())
    assert len((tmp_path / "run" / "completions.jsonl").read_text().splitlines()) == 8
    [journal] = (tmp_path / "run" / JOURNAL).iterdir()
    n_kept = len(journal.read_text().splitlines())
    assert n_kept >= 5  # an answer that was under way may still come through
    with journal.open("a") as torn:
        torn.write('{"key":"ab')
    server.die_after, server.answered, server.bodies = None, 0, []
    server.start()  # on another port
    monkeypatch.setattr(sys, "argv", ["tokenskip", "generate", str(tmp_path / "run"), "--set",
                                      f"generate.options.url={server.url}"])  # fmt: skip
    cli.main()
    assert server.answered == 24 - 8 - n_kept
    assert not list((tmp_path / "run" / JOURNAL).iterdir())
    undisturbed = tmp_path / "undisturbed"
    with Run(undisturbed, load_recipe(served_recipe(tmp_path, model_folder, server))) as run:
        generate(run)
    assert (undisturbed / "completions.jsonl").read_bytes() == (tmp_path / "run" / "completions.jsonl").read_bytes()


def test_a_whole_evaluation_over_a_server(server: ChatServer, tmp_path: Path, model_folder: Path) -> None:
    """Every arm but the control, with the adapter under a name of its own on the same server."""
    arms = ["original", "tokenskip", "prompt_be_concise", "marker_only", "truncation", "truncation_forced"]
    file = served_recipe(tmp_path, model_folder, server)
    overrides = [f"evaluate.arms={json.dumps(arms)}"]
    with Run(tmp_path / "run", load_recipe(file, overrides)) as run:
        for stage in (generate, grade, score, prune):
            stage(run)
        (tmp_path / "run" / "adapter").mkdir()  # what the server has loaded
        with pytest.raises(ConfigError, match=r"the openai backend cannot do tokenskip as configured: .*adapter: NAME"):
            evaluate(run)
    assert not (tmp_path / "run" / "eval").exists()
    overrides.append("generate.options.served={base: tiny, adapter: tiny}")
    with Run(tmp_path / "run", load_recipe(file, overrides)) as run:
        evaluate(run)
        rows = {name.stem: name.read_text().splitlines() for name in (tmp_path / "run" / "eval").glob("*.jsonl")}
    assert {len(lines) for name, lines in rows.items() if name != "timings"} == {10}
    assert {"tokenskip-0.5", "truncation_forced-0.5", "marker_only-0.5"} <= set(rows)
    assert not any("error" in json.loads(line)["finish"] for name in rows if name != "timings" for line in rows[name])


def test_server_down_is_one_line_before_any_model_loads(
    tmp_path: Path, model_folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "model" / name).write_bytes((model_folder / name).read_bytes())  # no weights: loading them fails
    file = recipe(tmp_path, tmp_path / "model", generate={"backend": "openai", "options": {"url": "127.0.0.1:9"}})
    monkeypatch.setattr(sys, "argv", ["tokenskip", "run", str(file), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert "no server answers at http://127.0.0.1:9/v1/models" in lines[0]


@pytest.mark.parametrize(
    ("folder", "weights"),
    [
        ("run", "adapter"), ("control-random", "control"), ("control-full-chain", "full_chain"),
        ("control-longer", "longer"), ("round-2", "round_2"),
    ],
)  # fmt: skip
def test_every_adapter_of_a_run_has_a_name_of_its_own_on_a_server(tmp_path: Path, folder: str, weights: str) -> None:
    """One served under another's name would be measured as it."""
    from tokenskip.arms import Arm
    from tokenskip.backends import openai

    assert openai._weights_of(tmp_path / folder / "adapter") == weights
    arm = Arm(name="a", weights={"adapter": "tokenskip", "control": "random"}.get(weights, weights))
    assert OpenAIBackend.refuses(arm, "x", served={"base": "x", weights: "y"}) is None
    assert f"has the {weights} weights" in str(OpenAIBackend.refuses(arm, "x"))
    assert "cannot be asked to load" in str(OpenAIBackend.refuses(Arm(name="a", weights="some/adapter"), "x"))
