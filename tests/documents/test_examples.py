"""What lies in examples/ runs as it stands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_and_questions_of_ones_own_end_in_a_server_with_two_lengths(tmp_path: Path) -> None:
    """Random weights, 40 lines: run, merge, `transformers serve`, doctor, and two ratios over the openai client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, EXAMPLES / "own_model.py", "--out", tmp_path, "--port", str(port)]
    done = subprocess.run(
        command, env={**os.environ, "HF_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=1100
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len((tmp_path / "mine.jsonl").read_text().splitlines()) == 40
    assert "honours compression_ratio" in done.stdout
    whole, short = json.loads((tmp_path / "answers.json").read_text())
    assert short["prompt"] == whole["prompt"].replace("are there?", "are there?<|im_end|>0.5<|im_end|>")
    assert short["prompt"] != whole["prompt"]
    for row in (whole, short):  # what the server rendered is what we render
        assert row["prompt_tokens"] == row["rendered_tokens"]
    assert 0 < short["answer_tokens"] < 0.8 * whole["answer_tokens"]
