"""The vocabulary of the procedural stories: names, things, events and sentence templates.

Reads nothing, writes nothing.

Template language: `{N}` name, `{s}` subject (name or pronoun), `{m}` him/her, `{h}` his/her, `{f}` a friend's
name, `{o}` the thing counted, `{n}` the operand, `{a}` the total before the step. In what the chain restates, words
inside `[...]` carry the meaning of the step (the event, the operation).
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
# kind -> (operation, ways to say it in the question, ways to restate it in a chain)
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
