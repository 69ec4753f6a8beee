"""Ways to ask for a short chain in words: what the arms without training and the source `prompt` say. Pure.

    TERSE["draft"].shots      # the worked examples of Chain of Draft

The paper's four (section 4.1 and appendix B.3), few-shot Chain of Draft (arXiv 2502.18600; without its examples small
models lose 10 points and more), TALE's token budget (2412.18547), and a template that opens the answer itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Terse:
    """What is said around a question. `{p}`: percent of words to leave out; `{budget}`: tokens that may be used.

    `shots`: (question, chain, answer) of worked examples; `prefill`: what the assistant's turn begins with.
    """

    about: str
    instruction: str = ""
    system: str = ""
    shots: tuple[tuple[str, str, str], ...] = ()
    prefill: str = ""

    @property
    def per_ratio(self) -> bool:
        """Whether it says another thing at every ratio."""
        return "{p}" in self.instruction or "{budget}" in self.instruction


def spelled(instruction: str, ratio: float, n_cot_tokens: float) -> str:
    """`instruction` at `ratio`, for a question whose whole chain has `n_cot_tokens`."""
    budget = str(max(1, round(ratio * n_cot_tokens)))
    return instruction.replace("{p}", f"{100 * (1 - ratio):.4g}").replace("{budget}", budget)


LC_PROMPT = "Please reduce {p}% of the words in your Chain-of-Thought process."
"""The paper's length-control prompt (appendix B.3 writes it out for 50%)."""

_DRAFTS = (
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did "
        "Jason give to Denny?",
        "20 - x = 12; x = 20 - 12 = 8.",
        "8",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed each day, from monday to "
        "thursday. How many computers are now in the server room?",
        "4 days, 4 * 5 = 20; 9 + 20 = 29.",
        "29",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have "
        "now?",
        "2 + 2 = 4; 5 + 4 = 9.",
        "9",
    ),
)
"""The questions are those of the few-shot CoT prompt for GSM8K (Wei et al., arXiv 2201.11903); the drafts are ours."""

TERSE = {
    "be_concise": Terse(about='"Be concise." in the prompt', instruction="Be concise."),
    "only_numbers": Terse(about='"Only use numbers or equations."', instruction="Only use numbers or equations."),
    "abbreviate": Terse(
        about='"Abbreviate words as much as possible."', instruction="Abbreviate words as much as possible."
    ),
    "lc": Terse(about="the length-control prompt", instruction=LC_PROMPT),
    "draft": Terse(
        about="Chain of Draft, with worked examples",
        instruction="Think step by step, but only keep a minimum draft for each thinking step, with 5 words at most.",
        shots=_DRAFTS,
    ),
    "budget": Terse(
        about="a token budget in the prompt (TALE)",
        instruction="Let's think step by step and use less than {budget} tokens.",
    ),
    "seeded": Terse(
        about="a terse system prompt, and the answer's first words given",
        system="Reason in short notes: one line a step, no introduction, no repetition.",
        prefill="Let me",
    ),
}
"""Name -> what is said."""
