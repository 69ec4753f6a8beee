"""The phrases of the solutions' registers, and the instructions that ask for each.

Reads nothing, writes nothing; `embedded_model.registers` draws from it. The template language is that of
`tokenskip.embedded.words`, with `{b}` the total after the step, `{e}` the equation, `{r}` and `{R}` the event restated.
Words inside `[...]` carry the meaning of the step; everything else that is neither such a word, a placeholder nor a
number is filler.
"""

from typing import Final

INTROS: Final = (
    "Let's go through this one step at a time. {N} [starts] with {a} {o}.",
    "Okay, let me think about this carefully. At the [start], {N} has {a} {o}.",
    "To solve this, we follow the story in order. {N} [starts] out with {a} {o}.",
    "Sure, let me work this out. The story [starts] with {a} {o}.",
    "First of all, {N} has {a} {o} at the [start], so we begin there.",
    "Let me keep track of the count. In the [beginning] there are {a} {o}.",
)
FIRST: Final = (
    "The first thing is that {r}",
    "To begin with, {r}",
    "First, we see that {r}",
    "So at first, {r}",
)
NEXT: Final = (
    "Next, we see that {r}",
    "After that, {r}",
    "Then it says that {r}",
    "The next thing is that {r}",
    "Moving on, {r}",
    "Now here {r}",
)
LAST: Final = (
    "Finally, we read that {r}",
    "The last thing is that {r}",
    "And at the end, {r}",
    "And lastly, {r}",
)
REASONS: Final[dict[str, tuple[str, ...]]] = {
    "+": (
        ", so we have to [add] {n} to it",
        ", so the count goes [up] by {n}",
        ", and that is {n} [more] than before",
        ", so we put {n} [more] on top",
        ", and that makes the total [grow]",
    ),
    "-": (
        ", so we have to [take] {n} [away]",
        ", so the count goes [down] by {n}",
        ", and that is {n} [fewer] than before",
        ", so we [subtract] {n} from it",
        ", and that makes the total [drop]",
    ),
    "*2": (
        ", so we have to [multiply] it by {n}",
        ", so we count it all [two] times",
        ", and that makes the total [grow]",
    ),
    "*3": (
        ", so we have to [multiply] it by {n}",
        ", so we count it all [three] times",
        ", and that makes the total [grow]",
    ),
    "/2": (
        ", so we have to [divide] it by {n}",
        ", so we split it into {n} equal parts",
        ", and that makes the total [shrink]",
    ),
}
SUMS: Final = (
    ". That gives us {e}",
    ". Then we get {e}",
    ". So the math is {e}",
    ", and we find {e}",
    ". This means that {e}",
    ". Now {e}",
)
RESULTS: Final = (
    ", so now there are {b}.",
    ", and that is the new count.",
    ", which leaves us {b} {o}.",
    ".",
    ", as we can see.",
    ".",
)
CLOSERS: Final = (
    "So, after all of this, {N} has {b} {o}.",
    "That was all, so in the end there are {b} {o}.",
    "Putting it together, {N} ends up with {b} {o}.",
    "There is nothing else to do, so it stays at {b}.",
    "And with that we are done, at {b} {o}.",
)

PLAIN_INTROS: Final = ("{N} [starts] with {a} {o}.", "At the [start] there are {a} {o}.", "{N} has {a} {o}.")
PLAIN_STEPS: Final = ("{R}, so {e}.", "{R}. That makes {e}.", "{R}, which gives {e}.")
SHORT_STEPS: Final[dict[str, tuple[str, ...]]] = {
    "+": ("[add] {n}", "[plus] {n}", "{n} [more]"),
    "-": ("[minus] {n}", "[take away] {n}", "{n} [fewer]"),
    "*2": ("[double]", "[twice]"),
    "*3": ("[triple]", "[three times]"),
    "/2": ("[half]", "[halve]"),
}

INSTRUCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "plain": (
        "Use plain words.",
        "Keep it simple.",
        "No need for long sentences.",
        "Plain steps, please.",
        "Explain it plainly.",
        "Write simply.",
        "A simple solution, please.",
        "Use simple sentences.",
    ),
    "telegraphic": (
        "Be concise.",
        "Keep it short.",
        "Be brief.",
        "Short, please.",
        "Use as few words as possible.",
        "Answer briefly.",
        "Please be concise.",
        "Make it short.",
    ),
    "dropout": (
        "Rough notes are fine.",
        "Just jot down your thoughts.",
        "Notes will do.",
        "It can be sloppy.",
        "Do not mind the grammar.",
        "Scribble it down.",
        "Rough notes, please.",
    ),
    "drill": (
        "Only write the equations.",
        "Only use numbers and equations.",
        "Equations only.",
        "Just show the math.",
    ),
    "direct": (
        "Just give the answer.",
        "Only the answer, please.",
        "Answer at once.",
        "Do not explain.",
        "Give only the final answer.",
    ),
    # the usual chatty chain follows these: they ask for nothing new
    "chatty": (
        "Please reason step by step.",
        "Think step by step.",
        "Explain your thinking.",
        "Take your time.",
        "Show your work.",
        "Let's think step by step.",
    ),
}
SYSTEMS: Final = (
    "You are a helpful assistant.",
    "You solve word problems.",
    "You are a patient teacher.",
    "Help the user.",
)
