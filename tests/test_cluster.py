"""The cluster examples: shell and YAML that parse, and commands that this version's command line takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tokenskip.cli import app
from tokenskip.config import load_recipe

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SLURM, KUBERAY = EXAMPLES / "slurm.sh", EXAMPLES / "kuberay.yaml"
VARIABLES = {"run": "runs/mine", "recipe": "mine.yaml", "workers": "16", "head": "node1"}


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `tokenskip` command in a shell text, without its comments."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)#.*$", "", text))
    for name, value in VARIABLES.items():
        lines = lines.replace(f"${name}", value)
    for found in re.findall(r"(?:^|step |-m |[;\"'] ?)tokenskip ([^;\n]+)", lines, re.MULTILINE):
        yield shlex.split(found.rstrip("\"'")) if found.count('"') % 2 else shlex.split(found)


def parse(arguments: list[str]) -> dict[str, Any]:
    """What click makes of the arguments; it raises a usage error for what the command does not take."""
    group: Any = typer.main.get_command(app)
    with group.make_context("tokenskip", list(arguments)) as context:
        name, command, rest = group.resolve_command(context, arguments)
        parsed: dict[str, Any] = command.make_context(name, rest, parent=context).params
        return parsed


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8")))


def shell_of_kuberay() -> list[str]:
    first, second = documents()
    [container] = second["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["bash", "-ec"]
    entry = shlex.split(first["spec"]["entrypoint"])
    assert entry[:2] == ["bash", "-ec"]
    return [entry[2], container["command"][2]]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda script: script.name)
def test_shell_examples_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    "text", [SLURM.read_text(encoding="utf-8"), "\n".join(shell_of_kuberay())], ids=["slurm", "kube"]
)
def test_the_command_line_takes_their_commands(text: str) -> None:
    found = list(commands(text))
    stages = ["generate", "grade", "score", "prune", "train", "evaluate", "report"]
    assert [arguments[0] for arguments in found] == stages
    for arguments in found:
        settings = parse(arguments).get("set_") or []
        load_recipe(None, settings)  # and the settings exist
        assert arguments[0] != "generate" or "engine=ray" in settings
    with pytest.raises(Exception, match=r"[Nn]o such option"):
        parse(["grade", "runs/mine", "--set", "engine=ray"])


def test_the_kubernetes_objects_fit_each_other_and_the_engine() -> None:
    for text in shell_of_kuberay():
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)
    ray, train = documents()
    assert (ray["kind"], train["kind"]) == ("RayJob", "Job")
    cluster = ray["spec"]["rayClusterSpec"]
    [group] = cluster["workerGroupSpecs"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], group["template"]["spec"], train["spec"]["template"]["spec"]]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    generate = next(commands(shell_of_kuberay()[0]))
    settings = load_recipe(None, parse(generate)["set_"]).engine
    gpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert settings.workers * settings.gpus_per_worker == group["replicas"] * gpus
