"""The words of answers, by language: what announces one, what links it, what is a number, a scale, or mere talk.

Tables only; `statements.py` finds answers with them, `values.py` reads numbers with them. To add a language, add its
words to `ANSWER_WORDS`, `LINKS`, and where they differ from English to the others.
"""

from __future__ import annotations

from fractions import Fraction


def word_set(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


ANSWER_WORDS = {
    "en": ("answer", "final result", "final value", "final solution"),
    "de": ("antwort", "endergebnis", "ergebnis"),
    "fr": ("réponse", "reponse", "résultat final", "résultat"),
    "es": ("respuesta", "resultado final", "resultado"),
    "it": ("risposta", "risultato finale", "risultato"),
    "pt": ("resposta",),
    "nl": ("antwoord",),
    "sv, no, da": ("svaret", "svar"),
    "fi": ("vastaus",),
    "pl": ("odpowiedź", "odpowiedz"),
    "cs": ("odpověď",),
    "ro": ("răspunsul", "răspuns"),
    "hu": ("válasz",),
    "tr": ("cevap", "cevabı", "yanıt"),
    "id": ("jawabannya", "jawaban"),
    "vi": ("đáp án", "đáp số", "câu trả lời"),
    "el": ("απάντηση",),
    "ru": ("ответ",),
    "uk": ("відповідь",),
    "ar": ("الجواب", "الإجابة", "جواب", "إجابة"),
    "fa": ("پاسخ",),
    "he": ("התשובה", "תשובה"),
    "hi": ("उत्तर", "जवाब"),
    "bn": ("উত্তর",),
    "zh": ("答案", "答"),
    "ja": ("答え", "正解", "解答"),
    "ko": ("정답", "답"),
    "th": ("คำตอบ",),
}
"""Words that announce an answer; a language's longer ones first."""

QUALIFIERS = (
    "correct", "right", "final", "finale", "finala", "best", "richtige", "korrekt\\w*", "correcta", "correcte",
    "corretta",
    "correta", "certa", "esatta", "exacte", "rätta", "poprawna",
    "الصحيحة", "الصحيح", "النهائية", "النهائي", "הסופית", "הנכונה",
)  # fmt: skip
"""Adjectives that may come between the word for an answer and what links it ("la respuesta correcta es")."""

LINKS = {
    "en": ("is", "are", "was", "will be", "should be", "must be", "would be", "has to be", "equals", "comes out to be",
           "comes out to", "comes to", "becomes", "turns out to be"),
    "de": ("ist", "lautet", "beträgt", "wäre"),
    "fr": ("est", "sera", "c'est"),
    "es": ("es", "son", "será"),
    "it": ("è", "e'", "sarà"),
    "pt": ("é", "será"),
    "nl": ("is", "luidt"),
    "sv, no, da": ("är", "er"),
    "fi": ("on",),
    "pl": ("to", "brzmi", "wynosi"),
    "cs": ("je", "zní"),
    "ro": ("este", "e"),
    "id": ("adalah", "ialah"),
    "vi": ("là",),
    "el": ("είναι",),
    "ru": ("это", "равен"),
    "ar": ("هو", "هي"),
    "fa": ("است",),
    "he": ("היא", "הוא"),
    "zh": ("应该是", "應該是", "就是", "是", "为", "為"),
    "ja": ("は", "が"),
    "ko": ("은", "는", "이"),
    "th": ("คือ",),
}  # fmt: skip
"""Words between the word for an answer and the answer; a colon, an equals sign and a dash do in every language."""

TALK = word_set(
    "correct incorrect right wrong plausible reasonable sensible consistent valid invalid verified confirmed "
    "clear obvious "
    "unique positive nonzero accurate exact good fine ok okay done complete unclear unknown uncertain ambiguous "
    "indeed also supported obtained found given provided shown written stated expressed rounded simplified based "
    "important simple easy straightforward here there below above this what whether how why when where as in for of on "
    "by from to with about not never still left known boxed logical realistic expected supposed possible impossible "
    "robust sound trivial available requested required needed wanted asked makes satisfies checks matches within "
    "inside "
    "the-same same close nearly likely-wrong off less-than-expected"
)  # fmt: skip
"""Words after "the answer is" that talk about the answer instead of giving it."""

SCALES: dict[str, Fraction] = {
    word: Fraction(value)
    for value, words in {
        12: "dozen dozens dutzend docena docenas douzaine douzaines dozzina dúzia dúzias дюжина дюжины",
        20: "score",
        100: "hundred hundreds hundert cent cien cientos cento cem сто сотен 百",
        144: "gross",
        10**3: "thousand thousands k tausend tsd mille mil mila тысяч тысячи тысяча тыс thousand 千 천 हज़ार हजार "
        "ألف ribu nghìn bin",
        10**4: "万 萬 만",
        10**5: "lakh lakhs लाख",
        10**6: "million millions mio million(s) millionen millón millones milione milioni milhão milhões миллион "
        "миллиона "
               "миллионов млн miljoen miljoner miljoona milyon juta triệu mln mn مليون 百万",
        10**7: "crore crores करोड़",
        10**8: "億 亿 억",
        10**9: "billion billions bn milliarde milliarden mrd milliard milliards miliardo miliardi миллиард "
        "миллиардов млрд "
               "miljard miljarder milyar tỷ",
        10**12: "trillion trillions tn billionen 兆 万亿",
    }.items()
    for word in words.split()
}  # fmt: skip
"""Words that multiply the number before them. `cent` (French) is no scale after digits; see `values`."""
del SCALES["cent"]

ATTACHED_SCALES = {"K": 10**3, "k": 10**3, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9}
"""Letters directly after a number that multiply it: $50K, 1.5M."""

NUMBER_WORDS: dict[str, int] = {
    word: value
    for value, words in {
        0: "zero null zéro cero zerо ноль",
        1: "one eins un une uno una um uma один одна 一",
        2: "two zwei deux dos dois duas два две 二 两 兩",
        3: "three drei trois tres tre três три 三",
        4: "four vier quatre cuatro quattro quatro четыре 四",
        5: "five fünf cinq cinco cinque пять 五",
        6: "six sechs seis шесть 六",
        7: "seven sieben sept siete sette sete семь 七",
        8: "eight acht huit ocho otto oito восемь 八",
        9: "nine neun neuf nueve nove девять 九",
        10: "ten zehn dix diez dieci dez десять 十",
        11: "eleven onze undici одиннадцать",
        12: "twelve zwölf douze doce dodici doze двенадцать",
        13: "thirteen dreizehn treize trece tredici treze",
        14: "fourteen vierzehn quatorze catorce quattordici catorze",
        15: "fifteen fünfzehn quinze quince quindici",
        16: "sixteen sechzehn seize dieciséis sedici dezesseis",
        17: "seventeen siebzehn diecisiete diciassette dezessete",
        18: "eighteen achtzehn dieciocho diciotto dezoito",
        19: "nineteen neunzehn diecinueve diciannove dezenove",
        20: "twenty zwanzig vingt veinte venti vinte двадцать",
        30: "thirty dreißig trente treinta trenta trinta тридцать",
        40: "forty fourty vierzig quarante cuarenta quaranta quarenta",
        50: "fifty fünfzig cinquante cincuenta cinquanta cinquenta",
        60: "sixty sechzig soixante sesenta sessanta sessenta",
        70: "seventy siebzig septante setenta settanta",
        80: "eighty achtzig ochenta ottanta oitenta",
        90: "ninety neunzig noventa novanta",
    }.items()
    for word in words.split()
}  # fmt: skip
"""Number words; those that are common words of another language (once, due, elf) are left out."""

ORDINALS = {
    word: value
    for value, word in enumerate(
        ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), start=1
    )
}
PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5,
    "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8, "ninth": 9,
    "ninths": 9, "tenth": 10, "tenths": 10,
}  # fmt: skip
"""Names of parts: two thirds, three quarters, half."""

NO_UNIT = word_set(
    "pi squared cubed root half halves third quarter or and than plus minus over except not to x percent least most "
    "between factorial mod modulo negative twice double triple without but und et y e i и oder ou o или と または "
    "或 dozen "
    "hundred "
    "thousand million billion trillion"
) | (NUMBER_WORDS.keys() - {"one", "un", "une", "uno", "una", "um", "uma", "quarter"})  # fmt: skip
"""Words after a number that change its value or leave it open, so that they are no unit."""

COMMA_LANGUAGES = word_set(
    # German, French, Spanish, Italian, Portuguese, Dutch, Polish, Czech, Turkish, Romanian, Scandinavian, Indonesian
    "der das und ist sind ein eine nicht antwort lautet ergebnis mehr le la les des est et une réponse résultat "
    "el los las es y una respuesta por tanto más il gli è di che risposta quindi o os um uma é não resposta "
    "portanto de "
    "het een en zijn antwoord odpowiedź wynosi odpověď je cevap ve bir răspunsul este și svaret är og vastaus "
    "jawabannya adalah đáp án là"
)
"""Common words of languages that write 1.234,5 for one thousand two hundred thirty-four and a half."""
POINT_LANGUAGES = word_set("the is of and answer so a in he she they are each total to")
