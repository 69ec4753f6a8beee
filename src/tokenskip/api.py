"""Two of the public functions: a whole run, and importances of texts, for whoever would rather write Python.

python -c "import tokenskip; print(tokenskip.score_texts(['So 2 + 3 = 5.'])[0].spans)"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenskip import pipeline
from tokenskip.commands.console import read_recipe
from tokenskip.commands.files import FilePruner
from tokenskip.config import RunConfig
from tokenskip.errors import ConfigError
from tokenskip.evaluation.schema import Results, load_results
from tokenskip.types import Scores, Trajectory


def run_recipe(recipe: RunConfig | str | Path, out: str | Path | None = None, overrides: Sequence[str] = ()) -> Results:
    """Run a recipe from the questions to the report; returns what `results.json` then holds.

    `recipe` is a configuration, a YAML file, or the name of a shipped recipe; `overrides` are `section.key=value`, laid
    over a file or a name. `out` is the run folder, by default `runs/NAME`; one that exists continues where it stopped.

    Raises:
        TokenskipError: whatever the command line would end with; nothing heavy has been loaded for a mistake in a name.
    """
    if isinstance(recipe, RunConfig):
        if overrides:
            raise ConfigError("overrides go with a recipe's name or file: a configuration is complete already")
        config = recipe
    else:
        config = read_recipe(Path(recipe), list(overrides), None)
    folder = Path(out) if out else Path("runs") / config.name
    with pipeline.Run(folder, config) as run:
        pipeline.run(run)
    return load_results(folder)


def score_texts(
    texts: Sequence[str],
    scorer: str = "surprisal",
    *,
    model: str = "embedded",
    questions: Sequence[str] | None = None,
    answers: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
) -> list[Scores]:
    """Importances of chains of thought by a scorer's name, one `Scores` a text; `prune_chain` cuts by them.

    `model` is the scorer's. A causal scorer reads the chain after its question, and `goal_gradient`, `mist` and the
    like need the answers as well; without `questions` the chain follows an empty one. `overrides` are those of
    `tokenskip prune FILE --set`: of score, prune, prompt, model and seed.

    Raises:
        TokenskipError: an unknown scorer, option or model; lists of different lengths.
    """
    for name, given in (("questions", questions), ("answers", answers)):
        if given is not None and len(given) != len(texts):
            raise ConfigError(f"{len(texts)} texts, but {len(given)} {name}: give one each")
    asked = questions if questions is not None else [""] * len(texts)
    golds = answers if answers is not None else [""] * len(texts)
    chains = [
        Trajectory(id=str(i), question=question, gold=gold, cot=text, tail=f"\n\n{gold}" if gold else "")
        for i, (text, question, gold) in enumerate(zip(texts, asked, golds, strict=True))
    ]
    scored = FilePruner(scorer, model, overrides=overrides).scored(chains) if chains else []
    return [trajectory.scores for trajectory in scored if trajectory.scores is not None]
