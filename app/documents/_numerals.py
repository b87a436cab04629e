"""The numerals of word processors: i, IV, b, 三, ①."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_ROMAN = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL")),
    *((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)
_MOST_ROMAN = 4000
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_LETTERS = 780
_MOST_CHINESE = 10_000
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"


def _roman(number: int) -> str:
    if not 0 < number < _MOST_ROMAN:
        return str(number)
    written = ""
    for value, letters in _ROMAN:
        written += letters * (number // value)
        number %= value
    return written


def _letter(number: int) -> str:
    """A to Z, then AA, BB."""
    if not 0 < number <= _MOST_LETTERS:
        return str(number)
    return _LETTERS[(number - 1) % len(_LETTERS)] * ((number - 1) // len(_LETTERS) + 1)


def _chinese(digits: str, units: str, *, ten: bool) -> Callable[[int], str]:
    """`digits` from 0, `units` from ten; `ten`: 10 to 19 are written without a one before the ten."""

    def write(number: int) -> str:
        if number == 0:
            return digits[0]
        if not 0 < number < _MOST_CHINESE:
            return str(number)
        written, gap = "", False
        for place in (3, 2, 1, 0):
            digit = number // 10**place % 10
            if digit == 0:
                gap = bool(written)
                continue
            written += (digits[0] if gap else "") + digits[digit] + (units[place - 1] if place else "")
            gap = False
        return written.removeprefix(digits[1]) if ten and written.startswith(digits[1] + units[0]) else written

    return write


def _of(row: str) -> Callable[[int], str]:
    return lambda number: row[number - 1] if 0 < number <= len(row) else str(number)


def _digits(row: str) -> Callable[[int], str]:
    return lambda number: "".join(row[int(digit)] if digit.isdigit() else digit for digit in str(number))


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


_simple = _chinese("零一二三四五六七八九", "十百千", ten=True)
_legal = _chinese("零壹贰叁肆伍陆柒捌玖", "拾佰仟", ten=False)
_legal_traditional = _chinese("零壹貳參肆伍陸柒捌玖", "拾佰仟", ten=False)

FORMATS: Mapping[str, Callable[[int], str]] = {
    "decimal": str,
    "decimalZero": lambda number: f"{number:02}",
    "upperRoman": _roman,
    "lowerRoman": lambda number: _roman(number).lower(),
    "upperLetter": _letter,
    "lowerLetter": lambda number: _letter(number).lower(),
    "ordinal": _ordinal,
    "none": lambda _: "",
    "numberInDash": lambda number: f"- {number} -",
    "decimalFullWidth": lambda number: "".join(
        chr(ord(digit) + 0xFEE0) if digit.isdigit() else digit for digit in str(number)
    ),
    "decimalEnclosedCircle": _of(_CIRCLED),
    "decimalEnclosedCircleChinese": _of(_CIRCLED),
    "chineseCounting": _simple,
    "chineseCountingThousand": _simple,
    "chineseLegalSimplified": _legal,
    "taiwaneseCounting": _simple,
    "taiwaneseCountingThousand": _simple,
    "japaneseCounting": _simple,
    "japaneseLegal": _legal_traditional,
    "ideographLegalTraditional": _legal_traditional,
    "ideographDigital": _digits("〇一二三四五六七八九"),
    "japaneseDigitalTenThousand": _digits("〇一二三四五六七八九"),
    "taiwaneseDigital": _digits("○一二三四五六七八九"),
    "ideographTraditional": _of("甲乙丙丁戊己庚辛壬癸"),
    "ideographZodiac": _of("子丑寅卯辰巳午未申酉戌亥"),
    "ideographEnclosedCircle": _of("㊀㊁㊂㊃㊄㊅㊆㊇㊈㊉"),
    "ganada": _of("가나다라마바사아자차카타파하"),
    "aiueoFullWidth": _of(
        "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"
    ),
    "iroha": _of("イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス"),
}
"""By their names in Office Open XML; others are displayed as 1, 2, 3."""
