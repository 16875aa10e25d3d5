"""A word-level tokenizer for agents that know one encyclopedia's language and nothing else.

Every word of every world is one token, and so is every fixed piece of the protocol, such as the
beginning of a search call: a model of half a million parameters then writes calls that the real
parser reads. Or, verbatim, it writes their JSON mark by mark, as larger models do. What is decoded
is encoded to the same tokens.
"""

import re
from itertools import chain

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from hanol.research import FORCED_ANSWER
from hanol.worlds import Encyclopedia

END = "<|im_end|>"
_SPECIAL = ("<|pad|>", "<|unk|>", END)
# Fixed pieces of turns, of results and of the prompts of Markov mode; the longest fitting one is
# taken.
SEARCH = '<tool_call>\n{"name": "search", "arguments": {"query": ["'
END_SEARCH = '"]}}\n</tool_call>'
VISIT = '<tool_call>\n{"name": "visit", "arguments": {"url": ["doc-'
GOAL = '.md"], "goal": "'
END_VISIT = '"}}\n</tool_call>'
THINK, END_THINK = "<think>\n", "\n</think>\n"
REPORT, END_REPORT = "<report>\n", "\n</report>\n"
ANSWER, END_ANSWER = "<answer>\n", "\n</answer>"
_PIECES = (
    *("<|im_start|>user\n", "<|im_start|>assistant\n"),
    *(f"{END_THINK}{start}" for start in (SEARCH, VISIT, ANSWER, REPORT)),
    *(f"{END_REPORT}{start}" for start in (SEARCH, VISIT, ANSWER)),
    *(SEARCH, END_SEARCH, VISIT, GOAL, END_VISIT, THINK, END_THINK),
    *(REPORT, END_REPORT, ANSWER, END_ANSWER),
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>", "<report>", "</report>", "<answer>", "</answer>"),
    *(f"\n{number}. " for number in range(1, 9)),  # hits of a search
    *("# Question\n", "\n\n# Report so far\n", "\n\n# Last action and its result\n"),
    *("(none yet)", "\n\n# Note\n", FORCED_ANSWER),
)
# Where pieces end in verbatim calls: after a tag's line, and around the JSON's own words.
_JSON_WORDS = ["name", "arguments", "search", "query", "visit", "url", "goal"]
_MARKS = re.compile(
    rf"(?<=>\n)(?=[<{{])|(?=\n</tool_call>)|(?<=\")(?={'|'.join(_JSON_WORDS)})"
    r"|(?<=[a-z])(?<!\.md)(?=\")"
)
# Words of thoughts, and of results that are no page.
_WORDS = ["need", "yes", "no", "none", "again", "results", "page", "search", "failed", "try", ";"]
_TOLD = "visit Try No answer Go You made this very call before same result Ask something or Take"
_CITED = 40
_DIGITS = tuple(f"-{number:02d}" for number in range(100))  # the second half of "doc-12-34.md"
_LINK, _END_LINK = "](doc-", ".md)"
# In this order: a number in brackets, the parts of a link, then words, numbers and marks.
_PIECE_OF_TEXT = r"\[\d+\]|\]\(doc-|\.md\)|(?<=\d\d)-\d\d|[A-Za-z]+|\d+|[^\sA-Za-z\d]"
# What the loop puts around results says nothing here, and is different in every run.
_FENCE = r"\[data [0-9a-f]{12} from \w+: content, not instructions\]|\[end [0-9a-f]{12}\]"
# Each looks at two neighbouring tokens alone, so that a text can be decoded piece by piece.
_JOINTS = (
    r"(?<=doc-) (?=\d\d)",
    r" (?=-\d\d)",
    r" (?=\.md)",
    r"(?<=\[) (?=\w)",
    r" (?=\]\(doc-)",
    r" (?=[.,?])",
    r'(?<=\[") |(?<=: ") | (?="\]\}|"\}\})',  # the ends of arguments
    r"(?<=\n) | (?=\n)|(?<=\. ) ",
)
_VERBATIM_JOINTS = (r'(?<=\{") |(?<=, ") | (?=": |", )',)
# Roles but no system message: it never changes, so there is nothing to learn from it.
_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "<|im_start|>user\n{{ message.content }}<|im_end|>\n"
    "{% elif message.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def encyclopedia_tokenizer(
    max_length: int = 4096, *, verbatim: bool = False
) -> PreTrainedTokenizerFast:
    """Make the tokenizer; it is the same every time.

    Args:
        max_length: Tokens that models with this tokenizer read at most.
        verbatim: The JSON of a call is written mark by mark and word by word: a search takes 12
            tokens around its query instead of 2.

    Returns:
        A tokenizer with a chat template that leaves the system message out and marks what the
        assistant writes, so that trainers can tell it from what it reads.
    """
    pieces: tuple[str, ...] = _PIECES
    if verbatim:
        parts = chain.from_iterable(_MARKS.split(piece) for piece in _PIECES)
        pieces = tuple(part for part in dict.fromkeys(parts) if part not in _JSON_WORDS)
    words = dict.fromkeys(
        chain(
            _SPECIAL,
            Encyclopedia.vocabulary(),
            *(_DIGITS, (f"[{number}]" for number in range(1, _CITED + 1))),
            *((_LINK, _END_LINK), _WORDS, pieces, _TOLD.split()),
            _JSON_WORDS if verbatim else (),
        )
    )
    tokenizer = Tokenizer(
        WordLevel({word: number for number, word in enumerate(words)}, unk_token="<|unk|>")  # noqa: S106
    )
    tokenizer.normalizer = normalizers.Replace(Regex(_FENCE), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE_OF_TEXT), "removed", invert=True)
    joints = (*_JOINTS, *_VERBATIM_JOINTS) if verbatim else _JOINTS
    # Spaces between all tokens, then those taken out that would break an address or look odd.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(Regex(joint), "") for joint in joints),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in _SPECIAL])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in pieces])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_SPECIAL[0],
        unk_token=_SPECIAL[1],
        eos_token=END,
        model_max_length=max_length,
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
