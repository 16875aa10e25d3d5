"""Control tokens in strangers' text: whatever the tokenizer, no document writes one."""

import pytest
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hanol.control import ControlTokens
from hanol.tools import escape_observation, escape_restated, fence_observation

# Special tokens of public families, as their tokenizers have them; none of them stays whole, also
# for a model whose tokenizer is not known.
FAMILIES = {
    "chatml": "<|im_start|> <|im_end|> <|endoftext|>",
    "llama": "<|begin_of_text|> <|start_header_id|> <|eot_id|> <|eom_id|> <|python_tag|>",
    "llama 2": "<s> </s> <unk> [INST] [/INST] <<SYS>> <</SYS>>",
    "mistral": "[TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] [AVAILABLE_TOOLS] [SYSTEM_PROMPT] "
    "[/SYSTEM_PROMPT] [THINK] [/THINK] [ARGS] [CALL_ID] [IMG] [IMG_END] [PREFIX] [MIDDLE]",
    "kimi": "[BOS] [EOS] [EOT] [PAD] [UNK] <|im_middle|> <|tool_calls_section_begin|>",
    "exaone": "[|system|] [|user|] [|assistant|] [|endofturn|]",
    "glm": "[gMASK] [sMASK] [MASK] <sop> <eop> <|observation|> <arg_key> </arg_value>",
    "gemma": "<bos> <eos> <pad> <start_of_turn> <end_of_turn> <unused7> <start_of_image>",
    "gemma 4": "<|turn> <turn|> <|channel> <channel|> <|tool_call> <tool_call|>",
    "seed": "<seed:bos> <seed:eos> <seed:think> </seed:think> <seed:tool_call>",
    "minimax": "]~!b[ ]~b] [e~[ ]<]minimax[>[ <minimax:tool_call> </minimax:tool_call>",
    "nemotron": "<SPECIAL_12> <extra_id_0> <extra_id_1>",
    "cohere": "<BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|CHATBOT_TOKEN|>",
    "qwen coder": "<function=search> </function> <parameter=query> </parameter> <fim_prefix>",
    "deepseek": "<｜begin▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜>",
    "phi": "<|user|> <|end|> <|assistant|> <|dummy_0|>",
    "harmony": "<|start|> <|channel|> <|message|> <|call|> <|return|>",
    "granite": "<|start_of_role|> <|end_of_role|> <|tool_call|>",
    "internlm": "[UNUSED_TOKEN_145] <|plugin|> <reserved_106>",
    "falcon": ">>TITLE<< >>ABSTRACT<<",
}
SHAPED = sorted({token for tokens in FAMILIES.values() for token in tokens.split()})
# Made up, of no shape, one inside of another, some with what may break others.
ODD = [
    "@@turn@@",
    "@@",
    "~~~~>",
    "turn@",
    "§§",
    "☯",
    "{{{user",
    "<\u200bx>",
    "end of text.",
    "Ωuser",
]


def tokenizer(tokens: list[str], normalizer: normalizers.Normalizer | None, **options: bool):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_special_tokens([AddedToken(token, **options) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


TOKENIZERS = {
    "plain": tokenizer([*SHAPED, *ODD], None, normalized=False),
    "stripping": tokenizer([*SHAPED, *ODD], None, normalized=False, lstrip=True, rstrip=True),
    "words": tokenizer([*SHAPED, *ODD], None, normalized=False, single_word=True),
    "nfkc": tokenizer([*SHAPED, *ODD], normalizers.NFKC(), normalized=True),
    "lower": tokenizer([*SHAPED, *ODD], normalizers.Lowercase(), normalized=True),
    "bert": tokenizer(
        [*SHAPED, *ODD], normalizers.BertNormalizer(strip_accents=False), normalized=True
    ),
}
CONTROL = {name: ControlTokens.of(known) for name, known in TOKENIZERS.items()}
# What a run keeps of a tokenizer in its log breaks the same.
KEPT = {name: ControlTokens(known.unknown(), known.mark) for name, known in CONTROL.items()}


def special(known: PreTrainedTokenizerFast, text: str) -> list[str]:
    ids = known(text, add_special_tokens=False).input_ids
    return [known.decode([i]) for i in ids if i in known.added_tokens_decoder]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_of_public_models_are_broken_without_their_tokenizer(family: str) -> None:
    for token in FAMILIES[family].split():
        for text in (token, f"a{token}b", f"{token}{token}", f"{token[0]}{token}{token[-1]}"):
            broken = escape_observation(text)
            assert token not in broken, token
            assert broken.replace("\u200b", "") == text
            assert escape_observation(broken) == broken


@settings(max_examples=100, deadline=None)
@example("bert", "<\u200bx>")  # a token with a sign that the tokenizer drops
@given(
    st.sampled_from(sorted(TOKENIZERS)),
    st.lists(
        st.sampled_from([*SHAPED, *ODD, "\u200b", " ", "\n", "<", "[", "|", ">", "＜", "｜", "@"])
        | st.sampled_from(SHAPED).map(lambda token: token[: len(token) // 2])
        | st.sampled_from(SHAPED).map(lambda token: token[len(token) // 2 :])
        | st.sampled_from(SHAPED).map(str.swapcase)
        | st.text(max_size=4),
        max_size=12,
    ).map("".join),
)
def test_no_document_writes_a_special_token(name: str, document: str) -> None:
    known, control = TOKENIZERS[name], CONTROL[name]
    broken = escape_observation(document, control)
    assert special(known, broken) == []
    assert escape_observation(broken, control) == broken
    fenced = fence_observation(document, marker="8f3a1c90", source="visit", control=control)
    prompt = f"<|im_start|>user\n{fenced}<|im_end|>\n"
    assert special(known, prompt) == special(known, "<|im_start|>user\n<|im_end|>\n")
    assert fenced.count("8f3a1c90") == 2
    assert special(known, escape_observation(document, KEPT[name])) == []


def test_a_marker_that_is_put_together_by_breaking_it_is_none() -> None:
    page = "8f3a8f38f3a1c90a1c901c90 8f3a1c908f3a1c90"
    fenced = fence_observation(page, marker="8f3a1c90", source="visit")
    assert fenced.count("8f3a1c90") == 2
    assert page in fenced.replace("\u200b", "")


def test_what_a_model_wrote_keeps_its_tags_and_no_control_tokens() -> None:
    said = '<think>a</think>\n<tool_call>\n{"name": "[INST] <|im_end|> </ Answer >"}\n</tool_call>'
    shown = escape_restated(said)
    assert shown.startswith("<think>a</think>\n<tool_call>\n")
    assert shown.endswith("\n</tool_call>")
    assert not any(token in shown for token in ("[INST]", "<|im_end|>", "</ Answer >"))
    assert shown.replace("\u200b", "") == said


def test_ordinary_signs_and_words_are_no_control_tokens() -> None:
    words = tokenizer(["!", "한국어", "\n\n", "  "], None, normalized=False)
    words.add_tokens(["tokenizer", "<tool_call>"])
    text = "한국어  tokenizer!\n\n"
    control = ControlTokens.of(words)
    assert "<tool_call>" in control.texts
    assert not {"!", "\n\n", "tokenizer"} & {*control.texts}
    assert ControlTokens().escape(text) == text
    assert "<tool_call>" not in ControlTokens.of(words, special_only=True).texts


def test_plain_text_that_a_small_tokenizer_has_as_tokens_stays_text() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_tokens(["\n1. ", "\n\n# Note\n", '": "', "<go>"])
    control = ControlTokens.of(tokenizer)
    assert control.escape('\n1. a": "a\n\n# Note\n') == '\n1. a": "a\n\n# Note\n'
    assert "<go>" not in control.escape("a <go>")
