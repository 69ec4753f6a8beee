"""What `push` takes along, and what it leaves alone: only files that a training writes, only folders that it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenskip.config import ModelConfig, RunConfig
from tokenskip.errors import RunError
from tokenskip.serving import upload
from tokenskip.serving.merge import Trained
from tokenskip.serving.upload import MADE, prepare_upload

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with an adapter; its card is not what is tested here."""
    folder = tmp_path / "run"
    (folder / "adapter").mkdir(parents=True)
    for name in ADAPTER:
        (folder / "adapter" / name).write_text("{}")
    monkeypatch.setattr(upload, "load_results", lambda path: {})
    monkeypatch.setattr(upload, "write_card", lambda *_, **__: "# card sk-SECRETKEY1\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRETKEY1")
    return folder


def prepare(run: Path, out: Path) -> upload.Upload:
    config = RunConfig(model=ModelConfig(path="acme/Tiny-1B"))
    trained = Trained(folder=run / "adapter", config=config, run=run)
    return prepare_upload(trained, "me/x", out, None, merged=False)


def test_only_listed_files_go(run: Path, tmp_path: Path) -> None:
    adapter = run / "adapter"
    (tmp_path / "secret").write_text("SECRET")
    (adapter / "id_rsa").symlink_to(tmp_path / "secret")
    (adapter / ".env").write_text("TOKEN=SECRET")
    (adapter / ".git").mkdir()
    (adapter / "checkpoint-5").mkdir()
    (adapter / "checkpoint-5" / "optimizer.pt").write_text("x")
    for name in ("notes.json", "train.jsonl", "pytorch_model.bin", "config.json.bak", "README.md", "losses.tsv"):
        (adapter / name).write_text("SECRET")
    found = prepare(run, tmp_path / "out")
    assert sorted(found.files) == sorted(("README.md", *ADAPTER))
    assert set(found.left_out) == {".env", ".git", "checkpoint-5", "config.json.bak", "id_rsa", "notes.json",
                                   "pytorch_model.bin", "train.jsonl"}  # fmt: skip
    assert {one.name for one in (tmp_path / "out").iterdir()} == {MADE, *found.files}
    assert not any("SECRET" in one.read_text() for one in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["tokenizer.json", "adapter_model.safetensors"])
def test_a_link_is_never_followed(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("SECRET")
    (run / "adapter" / name).unlink()
    (run / "adapter" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(RunError, match=f"holds {name} as a link"):
        prepare(run, tmp_path / "out")


def test_an_older_folder_of_ours_is_replaced(run: Path, tmp_path: Path) -> None:
    prepare(run, tmp_path / "out")
    (run / "adapter" / "tokenizer.json").unlink()
    found = prepare(run, tmp_path / "out")
    assert "tokenizer.json" not in {one.name for one in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds something else, which no push has written \(notes\.txt\)"):
        prepare(run, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").exists()
    assert set(found.files) == {one.name for one in (tmp_path / "out").iterdir()} - {MADE, "notes.txt"}


@pytest.mark.parametrize(
    "beside", ["README.md", "src/thesis.tex", "tokenizer.json", ".git/HEAD", "adapter_config.json"]
)
def test_a_folder_of_somebody_else_is_left_alone(run: Path, tmp_path: Path, beside: str) -> None:
    file = tmp_path / "out" / beside
    file.parent.mkdir(parents=True)
    file.write_text("years of work")
    with pytest.raises(RunError, match="holds something else"):
        prepare(run, tmp_path / "out")
    assert file.read_text() == "years of work"


def test_a_forged_list_deletes_nothing_else(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    (out / MADE).write_text("../precious\nthesis.tex\n")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        prepare(run, out)
    assert (tmp_path / "precious").exists()
    (out / "thesis.tex").unlink()
    (out / "tokenizer.json").symlink_to(tmp_path / "precious")
    (out / MADE).write_text("tokenizer.json\n")
    with pytest.raises(RunError, match="holds something else"):
        prepare(run, out)
    assert (tmp_path / "precious").read_text() == "x"


def test_the_output_is_a_folder_of_its_own(run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "link", tmp_path / "file"):
        with pytest.raises(RunError, match="is no folder of its own"):
            prepare(run, out)


def test_the_hub_gets_the_list(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from tokenskip.commands.push import _upload

    calls: list[dict[str, Any]] = []

    class Hub:
        def __init__(self, token: str) -> None: ...

        def create_repo(self, repo: str, **_: Any) -> str:
            return f"https://hub/{repo}"

        def upload_folder(self, **options: Any) -> None:
            calls.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    found = prepare(run, tmp_path / "out")
    assert _upload(found, "me/x", "token", private=True) == "https://hub/me/x"
    assert calls[0]["allow_patterns"] == list(found.files)
