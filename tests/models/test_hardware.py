"""What the machine is asked: glibc is told to keep memory, and says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tokenskip.models import hardware

FAULTS = """
import resource, sys
import torch
from tokenskip.models.hardware import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.empty(12_000_000).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hardware.keep_memory(), reason="another C library")
def test_large_tensors_are_not_handed_back_and_fetched_again() -> None:
    """Also above 32 MiB, where glibc refuses a threshold."""
    # the Makefile sets the same by these variables, which would leave nothing to compare
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("leave") / 3


def test_cores_are_those_this_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {0}); from tokenskip.models.hardware import cores; print(cores())"
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity here")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(("variables", "threads"), [({}, ["1", "2"]), ({"OMP_NUM_THREADS": "1"}, ["1", "1"])])
def test_a_narrow_model_computes_in_one_thread(variables: dict[str, str], threads: list[str]) -> None:
    """A wide one in as many as there are cores; unless somebody has said how many."""
    code = (
        "import torch\nfrom tokenskip.models import hardware\nhardware.cores = lambda: 2\n"
        "for width in (96, 2048):\n    hardware.set_threads(width)\n    print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == threads
