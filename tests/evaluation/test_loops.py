"""Loops are recognised in any script, and prose, formulas and tables are none."""

from __future__ import annotations

import pytest

from tokenskip.evaluation.loops import has_loop

CHINESE = "汤姆有十二个苹果，他给了杰瑞五个，所以还剩七个。然后他又买了三个，所以现在一共有十个苹果。"
JAPANESE = "トムはりんごを十二個持っています。五個をジェリーにあげたので、残りは七個です。"
THAI = "ทอมมีแอปเปิลสิบสองลูก เขาให้เจอร์รี่ไปห้าลูก ดังนั้นเหลือเจ็ดลูก"
KHMER = "សុខមានផ្លែប៉ោមដប់ពីរ ហើយគាត់ឲ្យមិត្តប្រាំផ្លែ"


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("", False),
        ("So 3 + 4 = 7. Then 7 + 4 = 11. Then 11 + 4 = 15. Then 15 + 4 = 19. The final answer is 19.", False),
        ("Let us think. " + "wait, wait, wait, ", False),
        ("First, 2 + 2 = 4. " + "So she has 4 apples. " * 6, True),
        ("First, 2 + 2 = 4. " + "So she has 4 apples. " * 6 + "The answer is 4.", True),
        ("the " * 40, True),
        ("answer " + "10" * 60, True),
        ("-" * 80 + " | table", False),
        ("|" + "---|" * 40, False),
        ("." * 200, False),
    ],
)
def test_where_words_have_spaces(text: str, looping: bool) -> None:
    assert has_loop(text) is looping


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        (CHINESE, False),
        (CHINESE * 2, False),
        (CHINESE + "答案是十。" * 3, False),
        (CHINESE + "所以答案是十。" * 8, True),
        (CHINESE * 4, True),
        ("让我再想想。" * 12, True),
        ("好" * 30, True),
        ("哈哈哈", False),
        (JAPANESE, False),
        (JAPANESE + "もう一度考えます。" * 8, True),
        (THAI, False),
        (THAI + "ลองคิดใหม่อีกครั้ง" * 8, True),
        (KHMER, False),
        (KHMER * 6, True),
        ("宇宙中大约有1000000000000颗星星，银河系里有一些。" + CHINESE, False),
        ("第1步：12-5=7。第2步：7+3=10。第3步：10-2=8。第4步：8-1=7。第5步：7-3=4。", False),
        ("x=1;" * 40, True),
        ("1+1+1+1=4,2+2+2=6", False),
        (r"\frac{1}{2}+" * 20, True),
        (r"\begin{aligned}x&=1+2+3+4+5+6+7+8+9\\y&=10+11+12+13+14+15+16+17\end{aligned}", False),
    ],
)
def test_where_nothing_has_spaces(text: str, looping: bool) -> None:
    assert has_loop(text) is looping


def test_long_texts_take_no_time() -> None:
    """Two hundred thousand characters that repeat nothing, and as many that repeat from the start."""
    varied = "".join(chr(0x4E00 + (i * i * 7919 + i) % 20_000) for i in range(200_000))
    assert has_loop(varied) is False
    assert has_loop("想想，" * 60_000) is True
