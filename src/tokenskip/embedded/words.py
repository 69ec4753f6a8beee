"""The vocabulary of the procedural stories: names, things, events and sentence templates.

Reads nothing, writes nothing; `tokenskip.embedded.family` and `embedded_model.registers` draw from it.
Look at the result with `python -m tokenskip.embedded.family --n 3`.

Template language: `{N}` name, `{s}` subject (name or pronoun), `{m}` him/her, `{h}` his/her, `{f}` a friend's
name, `{o}` the thing counted, `{n}` the operand, `{a}` / `{b}` the total before / after the step, `{e}` the equation.
Words inside `[...]` carry the meaning of the step (the event, the operation); everything else that is neither such a
word, a placeholder nor a number is filler.
"""

from typing import Final


def _list(text: str) -> list[str]:
    return text.split()


HE: Final = _list(
    "Tom Ben Sam Leo Max Jack Omar Luis Ivan Noah Paul Hugo Finn Ravi Kenji Adam Felix Oscar Theo Marco Emil Jonas "
    "Victor Amir"
)
SHE: Final = _list(
    "Anna Mia Lucy Emma Nora Sara Lily Rosa Ines Zoe Clara Maya Ruth Julia Alice Hana Priya Elena Grace Sofia Leila "
    "Wendy Carla Dina"
)
THINGS: Final = _list(
    "apples marbles stickers books coins pencils shells cards stamps buttons cookies balloons pears stones beads "
    "lemons candles cups ribbons crayons plums tickets magnets keys badges muffins"
)
BOXES: Final = _list("box bag jar basket drawer")
SCENES: Final = (
    "It is a busy Saturday morning.",
    "The weekend has just begun.",
    "School is out for the day.",
    "It is a quiet rainy afternoon.",
    "The summer fair is in town.",
    "There is a lot going on this week.",
    "Here is a short story about {N}.",
    "Everyone in the street knows {N}.",
)
STARTS: Final = (
    "{N} has {a} {o}.",
    "{N} starts the day with {a} {o}.",
    "{N} begins with {a} {o} in a {x}.",
    "There are {a} {o} in the {x} of {N}.",
    "At first, {N} owns {a} {o}.",
    "In the morning {N} counts {a} {o}.",
    "{N} keeps {a} {o} in a {x}.",
)
QUESTIONS: Final = (
    "How many {o} does {N} have now?",
    "How many {o} does {N} have in the end?",
    "In the end, how many {o} are there?",
    "What is the final number of {o}?",
    "How many {o} does {N} end up with?",
    "Can you work out how many {o} {N} has now?",
    "With how many {o} does {N} finish?",
)
LINKS: Final = (
    "{c}.",
    "Then {c}.",
    "After that, {c}.",
    "Later, {c}.",
    "The next day, {c}.",
    "A little later, {c}.",
    "Soon after, {c}.",
)

# fmt: off
# kind -> (operation, ways the question tells it, ways the chain restates it)
EVENTS: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "buy": ("+", ("{s} buys {n} more {o} at the market", "{s} goes to the shop and buys {n} {o}"),
            ("{s} [buys] {n} more {o}", "{s} [bought] {n} {o} there")),
    "find": ("+", ("{s} finds {n} {o} under the bed", "{s} finds another {n} {o} in the park"),
             ("{s} [finds] {n} {o}", "another {n} {o} are [found]")),
    "gift": ("+", ("{f} gives {m} {n} {o} as a present", "{s} is given {n} more {o} by {f}"),
             ("{f} [gives] {m} {n} {o}", "{s} is [given] {n} {o} by {f}")),
    "pick": ("+", ("{s} picks up {n} more {o} on the way home", "{s} picks up another {n} {o}"),
             ("{s} [picks up] {n} more {o}", "{s} [picks up] another {n} {o}")),
    "post": ("+", ("a parcel with {n} {o} arrives in the post", "{s} gets {n} {o} in the mail"),
             ("{n} {o} [arrive] in a parcel", "{s} [gets] {n} {o} by mail")),
    "win": ("+", ("{s} wins {n} {o} in a game", "{s} plays a game with {f} and wins {n} {o}"),
            ("{s} [wins] {n} {o} in the game", "{s} [won] {n} {o}")),
    "make": ("+", ("{s} trades an old toy for {n} {o}", "{f} trades {n} {o} for an old toy of {N}"),
             ("{s} [trades] a toy [for] {n} {o}", "the [trade] brings in {n} {o}")),
    "borrow": ("+", ("{s} borrows {n} {o} from {f}", "{f} lets {m} borrow {n} {o}"),
               ("{s} [borrows] {n} {o} from {f}", "{f} lets {m} [borrow] {n} {o}")),
    "give": ("-", ("{s} gives {n} {o} to {f}", "{s} hands {n} of the {o} to {f}"),
             ("{s} [gives away] {n} {o} to {f}", "{f} [takes] {n} {o} from {m}")),
    "lose": ("-", ("{s} loses {n} {o} on the bus", "{n} of the {o} get lost"),
             ("{s} [loses] {n} {o}", "{n} {o} get [lost]")),
    "sell": ("-", ("{s} sells {n} {o} to {f}", "{f} pays {m} for {n} of the {o}"),
             ("{s} [sells] {n} {o} to {f}", "{n} {o} are [sold] to {f}")),
    "use": ("-", ("{s} uses {n} {o} for a school project", "{s} needs {n} of the {o} for a party and uses them up"),
            ("{s} [uses] {n} {o}", "{n} {o} are [used] up")),
    "break": ("-", ("{n} of the {o} break and {s} throws them out", "{s} drops {n} {o} and they are ruined"),
              ("{n} {o} are [broken]", "{n} {o} have to be [thrown out]")),
    "lend": ("-", ("{s} lends {n} {o} to {f}", "{f} asks for {n} {o} and {s} lends them"),
             ("{s} [lends] {n} {o} to {f}", "{f} is [lent] {n} {o}")),
    "donate": ("-", ("{s} donates {n} {o} to the school", "{s} leaves {n} {o} at the library as a gift"),
               ("{s} [donates] {n} {o}", "{n} {o} are [donated]")),
    "steal": ("-", ("a bird flies off with {n} of the {o}", "the dog runs away with {n} {o}"),
              ("{n} {o} are [taken] away", "an animal [takes] {n} {o}")),
    "double": ("*2", ("the number of {o} doubles overnight", "{s} doubles the number of {o}"),
               ("the number of {o} [doubles]", "the {o} are [doubled]")),
    "twice": ("*2", ("{s} ends the week with twice as many {o}", "thanks to {f}, {s} now has twice as many {o}"),
              ("{s} now has [twice] as many {o}", "there are [twice] as many {o}")),
    "triple": ("*3", ("the number of {o} triples overnight", "{s} triples the number of {o}"),
               ("the number of {o} [triples]", "the {o} are [tripled]")),
    "thrice": ("*3", ("{s} ends the week with three times as many {o}",
                      "thanks to {f}, {s} now has three times as many {o}"),
               ("{s} now has [three times] as many {o}", "there are [three times] as many {o}")),
    "halve": ("/2", ("{s} gives half of the {o} to {f}", "{s} shares the {o} and gives {f} half of them"),
              ("{s} gives [half] of the {o} to {f}", "{f} gets [half] of the {o}")),
    "halved": ("/2", ("half of the {o} go missing", "{s} sells half of the {o}"),
               ("[half] of the {o} are gone", "{s} is down to [half] of the {o}")),
}
# fmt: on

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
    # behind these the usual chatty chain follows: they ask for nothing new
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
