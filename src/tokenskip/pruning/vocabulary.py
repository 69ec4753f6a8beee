"""The words that matter where a chain states an equation. Data only.

Pruning does not depend on knowing every operator word: an equation that does not hold by its numbers alone is kept
together with all the words of its clause, whatever their language (`tokenskip.pruning.statements`). These lists make
the common cases smaller (`FILLERS`) and catch an operator word that lands beside an equation that does hold.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EQUALITY_WORDS = (
    "equals", "equal to", "is equal to", "are equal to", "equals to", "égale", "égal à", "est égal à", "gleich",
    "ist gleich", "ergibt", "igual a", "es igual a", "è uguale a", "é igual a", "равно", "равняется", "等于", "等於",
)  # fmt: skip
"""State an equation between whatever is on their sides."""

EQUALITY_HEADS = tuple(sorted({max(phrase.split(), key=len) for phrase in EQUALITY_WORDS}))
"""The word of each of these phrases that says so."""

LINKING_VERBS = _words(
    """
    is are was were be gives give makes make leaves leave yields yield totals becomes become
    ist sind sind war macht gibt est sont fait donne es son era da hace è sono fa é são dá это будет є jest daje
    """
)
"""State an equation only between two numbers ("48 is 24")."""

OPERATOR_WORDS = _words(
    """
    half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths
    ninth ninths tenth tenths twice thrice double doubling triple quadruple halving
    of than sum difference product quotient square root cube power log ln sin cos tan exp mod modulo remainder
    plus minus gcd lcm hcf factorial choose negative not
    moitié tiers quart double triple somme différence produit quotient racine carrée
    hälfte drittel viertel halb halbe doppelte doppelt dreifache dreifach summe differenz produkt wurzel
    mitad tercio tercera cuarto cuarta doble triple suma diferencia producto raíz cuadrada
    metà terzo quarto doppio triplo somma differenza prodotto radice
    metade terço dobro soma diferença produto raiz quadrada
    половина половину половины треть четверть дважды трижды вдвое втрое сумма разность произведение корень
    """
)
"""Change the value of the number that they precede."""

SUFFIX_OPERATORS = _words(
    """
    squared cubed doubled tripled quadrupled halved dozen hundred thousand million billion trillion percent factorial
    mod modulo choose carré pourcent quadrat prozent cuadrado ciento quadrato quadrado процентов
    """
)
"""Change the value of the number that they follow."""

UNSPACED_OPERATORS = frozenset("半倍乘除加减減平根和差积積商")

FILLERS = _words(
    """
    i you he she it we they this that these those there here him them us his her its their our your my
    a an the so then thus therefore hence and but or as because since now next first second finally also again
    well okay ok yes right let let's is are was were be been has have had having do does did will would can could may
    must should get gets got find finds found know knows see sees means need needs say says gives give makes make
    leaves leave total altogether already just only exactly still in at on to for with where when if while which who
    after before during until would that's it's there's
    """
)
"""English words that change no number: at the edge of an equation's clause they are cut like any other word."""

SUFFIX_STOPS = FILLERS | _words("from by about into out each every")
"""Where the words end that belong to an equation's right-hand side."""
