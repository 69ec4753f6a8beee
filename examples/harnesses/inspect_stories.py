"""The embedded model's stories as a task of inspect-ai; stories.jsonl lies in the folder that `inspect` runs in."""

import os

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task
def stories() -> Task:
    """A question, one answer, and the number at its end compared with the gold one."""
    data = json_dataset(os.path.abspath("stories.jsonl"), FieldSpec(input="question", target="answer"))
    return Task(dataset=data, solver=generate(), scorer=match("end", numeric=True))
