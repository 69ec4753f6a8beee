"""Where sentences end: one rule for answers and for pruning."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tokenskip.sentences import ends_sentence, sentence_ends

SENTENCES = [
    ["Dr. Ray left.", " He has 3.", " Tom won 5!", " Then 5! = 120."],
    ["Mr. Li has 3.5.", " He buys 2!"],
    ["It opens at 5 p.m.", " Tom left at 6 p.m. and slept."],
    ["The U.S. Navy came.", " He left the U.S.", " The end."],
    ["See No. 5 and eq. 3.", " She said no.", " He left."],
    ["It is 20 ft.", " Tom lives in Ft. Worth."],
    ["J. K. Rowling met George W. Bush.", " The answer is B.", " Charles knows."],
    ["He sat.", " 3 men came on Sat. 3 Mar. 2020."],
    ["Step 1. Tom has 3.", " He buys 2."],
    ["1. Tom has 3.", " He buys 2."],
    ["The terms are 1, 2, …, 10.", " Wait…", " No."],
    ["他有3.", "二是2。", "答案是5。"],
    ["Nimm z.B. Äpfel.", " Es sind ca. 5."],
    ["उत्तर 5 है।", " ठीक।"],
    ['He said "no."', " (It was 5.)", " *Done.*"],
    [r"So $a\!b = 2$.", " Done."],
]


@pytest.mark.parametrize("sentences", SENTENCES, ids=lambda sentences: sentences[0])
def test_a_text_divides_into_its_sentences(sentences: list[str]) -> None:
    text = "".join(sentences)
    ends = [0, *sentence_ends(text)]
    assert [text[a:b] for a, b in pairwise(ends)] == sentences


@pytest.mark.parametrize("sentences", SENTENCES, ids=lambda sentences: sentences[0])
def test_both_questions_have_one_answer(sentences: list[str]) -> None:
    text = "".join(sentences)
    start, ends = 0, []
    for end in range(1, len(text) + 1):
        if ends_sentence(text, start, end):
            ends.append(end)
            start = end
    assert ends == list(sentence_ends(text))


def test_a_label_is_an_end_where_a_value_is_read() -> None:
    assert list(sentence_ends("17. That is all.", labels=False)) == [3, 16]
    assert list(sentence_ends("17. That is all.")) == [16]
