"""Numbers of list items in the forms that programs show."""

_ROMAN = ((1000, "m"), (100, "cdm"), (10, "xlc"), (1, "ivx"))  # one, five and ten of each power
_DIGITS = ("", "0", "00", "000", "01", "1", "10", "100", "1000", "02")  # of these, for 0 to 9
_SIGNS = {
    "a": "abcdefghijklmnopqrstuvwxyz",
    "가": "가나다라마바사아자차카타파하",
    "ㄱ": "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ",
    "一": "一二三四五六七八九",
    "①": "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳",
}


def spelled(number: int, form: str) -> str:
    """A number from 1 as a list shows it; as digits where its form has no such number.

    Args:
        number: Which item it is.
        form: How the first item looks: "1", "01", "a", "A", "i", "I", "가", "ㄱ", "①", "一"; ""
            shows nothing.
    """
    low = form.lower()
    if low == "i" and 0 < number < 4000:
        places = ((_DIGITS[number // power % 10], signs) for power, signs in _ROMAN)
        text = "".join(signs[int(digit)] for digits, signs in places for digit in digits)
    elif form == "一" and 0 < number < 100:
        tens, ones = divmod(number, 10)
        text = (" " + _SIGNS[form])[tens].replace("一", "").strip() + "十" * (tens > 0)
        text += (" " + _SIGNS[form])[ones].strip()
    elif low in _SIGNS and 0 < number <= len(_SIGNS[low]):
        text = _SIGNS[low][number - 1]
    elif not form:
        text = ""
    else:
        text = f"{number:02}" if form == "01" else str(number)
    return text.upper() if form in ("A", "I") else text
