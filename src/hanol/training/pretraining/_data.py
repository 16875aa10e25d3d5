"""Documents: where they come from, which are held out, their tokenizer, their tokens on disk.

A corpus on disk is one array of tokens, every document with the begin token in front and the end
token behind it, and one array of the documents' ends. Both are memory-mapped.
"""

import codecs
import hashlib
import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hanol.errors import DataError, require
from hanol.files import open_regular, read_text
from hanol.training.pretraining._pretrain_recipe import DataSection
from hanol.worlds import open_problems

# Test suites repeat the code they test, and 2to3 and IDLE's tests are no library code.
_SKIPPED = {"test", "tests", "idle_test", "site-packages", "__pycache__", "dist-packages"}

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
# A problem and its solution a line below, so that a model of problems answers messages.
PROBLEM_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)
_PATTERN = Regex(r" ?[^\W\d]+| ?\d| ?[^\s\w]+|\n[ \t]*|\s+(?=\S)|\s+")


@dataclass(frozen=True)
class SourceText:
    """A text, and the name by which it is held out or not."""

    group: str
    text: str


def documents(data: DataSection) -> Iterator[SourceText]:
    """All documents of a source, in an order that does not depend on the machine.

    Raises:
        DataError: The path is missing, or a row has no text.
    """
    if data.source == "stdlib":
        return _stdlib()
    if data.source == "folder":
        return _folder(Path(str(data.path)))
    if data.source == "jsonl":
        return _jsonl(Path(str(data.path)), data.text_column)
    if data.source == "problems":
        return _problems(str(data.path), data.num_problems)
    return _rows(data)


def source_hash(data: DataSection) -> str:
    """SHA-256 of all documents of a source and of how they are split.

    A dataset of the hub is told by its name and commit, for it would be fetched again.

    Raises:
        DataError: See `documents`.
    """
    digest = hashlib.sha256(data.model_dump_json(exclude={"path"}).encode())
    if data.source == "datasets":
        digest.update(str(data.path).encode())
        return digest.hexdigest()
    for document in documents(data):
        digest.update(json.dumps([document.group, document.text]).encode())
    return digest.hexdigest()


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of what decides the tokens of a text: vocabulary, merges, rules, special tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    rules = sorted(tokenizer.get_vocab().items()) if fast is None else fast.to_str()
    ends = tokenizer.bos_token_id, tokenizer.eos_token_id
    return hashlib.sha256(json.dumps([rules, ends]).encode()).hexdigest()


def is_held_out(group: str, share: float) -> bool:
    """Whether documents of this group are held out: a stable hash, no seed."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def _stdlib() -> Iterator[SourceText]:
    """Python files grouped by top-level module, then the language reference by topic."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).parts
        if _SKIPPED & set(parts) or parts[0] in {"lib2to3", "pydoc_data"}:
            continue
        if text := _text(file):
            yield SourceText(parts[0].removesuffix(".py"), text)
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield SourceText(f"pydoc:{name}", topics[name])


def _problems(spec: str, number: int | None) -> Iterator[SourceText]:
    """Problems of the split "train" with their solutions, as `PROBLEM_TEMPLATE` writes them."""
    for one in open_problems(spec, count=number):
        if not one.steps:
            raise DataError(f"{spec!r} has no solutions to learn: use a world such as chains.")
        yield SourceText(one.id, f"{one.problem}\n{one.solution}")


def _folder(root: Path) -> Iterator[SourceText]:
    if not root.is_dir():
        raise DataError(f"`data.path` is {str(root)!r}, but there is no such folder.")
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        if text := _text(file):
            yield SourceText(file.relative_to(root).as_posix(), text)


def _text(file: Path) -> str | None:
    try:
        return read_text(file, "utf-8-sig")
    except UnicodeDecodeError:
        return None  # not a text file


def _jsonl(path: Path, column: str) -> Iterator[SourceText]:
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise DataError(f"`data.path` is {str(path)!r}, but no JSON lines file is there.")
    for file in files:
        with open_regular(file) as lines:
            for number, line in enumerate(lines, start=1):
                if not (line := line.removeprefix(codecs.BOM_UTF8).strip()):
                    continue
                try:
                    text = json.loads(line)[column]
                except (ValueError, KeyError, TypeError) as err:
                    raise DataError(
                        f"{str(file)!r}, line {number}: not a JSON object with the key {column!r}."
                    ) from err
                where = f"{str(file)!r}, line {number}"
                yield SourceText(f"{file.name}:{number}", _string(text, where, column))


def _string(text: Any, where: str, column: str) -> str:
    if not isinstance(text, str):
        raise DataError(
            f"{where}: {column!r} is {text!r:.60}, not a text. Leave the row out, or set "
            "`data.text_column`."
        )
    return text


def _rows(data: DataSection) -> Iterator[SourceText]:
    path = str(data.path)
    rows = dataset_rows(str(data.source), path, data.split, data.revision)
    for number, row in enumerate(rows):
        if data.text_column not in row:
            known = ", ".join(row)
            raise DataError(
                f"{path!r} has no column {data.text_column!r}; it has {known}. "
                "Set `data.text_column`."
            )
        text = _string(row[data.text_column], f"{path!r}, row {number + 1}", data.text_column)
        yield SourceText(f"{path}:{number}", text)


def dataset_rows(
    source: str, path: str, split: str = "train", revision: str | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file, of a folder of them, or of a dataset by name.

    Args:
        source: "parquet" or "datasets".
        path: File, folder or name.
        split: Split of a dataset.
        revision: Commit of a dataset.

    Raises:
        DataError: It cannot be read.
    """
    datasets = require("datasets", extra="train", feature="Reading parquet files and datasets")
    try:
        if source == "parquet":
            files = sorted(map(str, Path(path).glob("*.parquet"))) if Path(path).is_dir() else path
            rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        else:
            rows = datasets.load_dataset(path, split=split, revision=revision, streaming=True)
        yield from rows
    except (OSError, ValueError) as err:
        cause = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise DataError(f"{path!r} could not be read: {cause}") from err


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer whose ids 0, 1, 2 are begin, end and padding, which `vocab_size` counts."""
    tokenizer = Tokenizer(models.BPE())
    # Indentation is one token, words keep the space before them, digits stand alone.
    split = pre_tokenizers.Split(_PATTERN, behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )


class Corpus:
    """Tokens of many documents on disk, their ends among them, and the bytes of each text."""

    def __init__(self, folder: Path) -> None:
        self.tokens: NDArray[Any] = np.load(folder / "tokens.npy", mmap_mode="r")
        self.ends: NDArray[np.int64] = np.load(folder / "ends.npy")
        self.bytes_of: NDArray[np.int64] = np.load(folder / "bytes.npy")

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all texts."""
        return int(self.bytes_of.sum())

    def document(self, index: int) -> NDArray[Any]:
        """Tokens of one document, with the end token and, if the tokenizer has one, the begin."""
        start = int(self.ends[index - 1]) if index else 0
        return np.asarray(self.tokens[start : int(self.ends[index])])


def write_corpus(folder: Path, texts: Iterator[str], tokenizer: Any) -> None:
    """Tokenise texts into a folder that `Corpus` reads.

    Raises:
        DataError: There is no text, or the tokenizer has no end token to tell documents apart.
    """
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if eos is None:
        raise DataError("The tokenizer has no end token: set `tokenizer.eos_token`.")
    begin = [] if bos is None else [bos]
    pieces: list[NDArray[Any]] = []
    sizes: list[int] = []
    texts = filter(None, texts)
    while batch := list(islice(texts, 256)):
        tokens = tokenizer(batch, add_special_tokens=False).input_ids
        pieces += [np.asarray([*begin, *ids, eos], dtype=dtype) for ids in tokens]
        sizes += [len(text.encode()) for text in batch]
    if not pieces:
        raise DataError(
            "The data has no documents on one side of the split: give more text, or change "
            "`data.held_out`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "tokens.npy", np.concatenate(pieces))
    np.save(folder / "ends.npy", np.cumsum([len(piece) for piece in pieces], dtype=np.int64))
    np.save(folder / "bytes.npy", np.asarray(sizes, dtype=np.int64))
