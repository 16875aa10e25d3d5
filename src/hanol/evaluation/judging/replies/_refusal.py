"""Refusals: answers that decline, in English, Chinese and Korean."""

import re

_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|afraid|unable|not able)"
    r"|i (?:can(?:no|['’])t|must decline|won['’]t)|(?:as|being) an ai\b|i apologi[sz]e"
    r"|unable to (?:translate|assist|help|comply|judge|evaluate))"
    r"|(?:很?抱歉|对不起)[，,。!！\s]*(?:但|我|由于|无法|不能)"
    r"|我(?:无法|不能|不便)(?:翻译|提供|协助|回答|完成|评)"
    r"|죄송(?:합니다|하지만)|(?:번역|답변)(?:할|해 드릴) 수 없|도와드릴 수 없",
    re.IGNORECASE,
)
_WITHIN = 120  # characters: further in, somebody in a story says so
_LONGEST = 600


def is_refusal(text: str) -> bool:
    """Whether a text declines to do what was asked: short, and it says so at its beginning.

    A sentence in quotation marks is speech, not a refusal.
    """
    text = text.strip()
    if len(text) > _LONGEST or text[:1] in "\"“「『'‘":
        return False
    found = _REFUSAL.search(text, 0, _WITHIN)
    return found is not None and (found.start() < 40 or "AI" in text)
