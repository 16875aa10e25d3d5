"""What the heads are trained on: hidden states, log-probabilities and labels of the base.

A cache keeps log-probabilities instead of logits: the losses do not see the difference. It keeps
all of a vocabulary of up to `top_k` tokens. For a larger one it keeps the label, the `top_k` most
likely others, and the mass of all the rest as one token: exact at T = 1, but not at another
temperature, which would move mass into or out of the rest. `tail_mass` says how large that is.

Shape suffixes: B rows of a micro-batch, S their longest length, N positions of all rows of a batch,
R rows in all, M positions with a label, V vocabulary, H hidden width, K kept tokens, C columns of a
cache.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hanol.autodeco._heads import TopPHead
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._data import TokenRow
from hanol.autodeco.training._loss import IGNORED
from hanol.errors import ConfigError, DataError
from hanol.files import (
    read_text,
    whole_folder,
)

_log = logging.getLogger(__name__)
CacheDtype = Literal["float32", "float16"]

_META = "features.json"
_LOWEST = -6e4  # the least log-probability that is kept; all that is less is as unlikely
_CHUNK = 256  # rows as wide as the vocabulary that are worked on together


class FeatureBatch(NamedTuple):
    """What `autodeco_loss` takes: logits of the base, hidden states, the token after each."""

    logits_NV: Tensor
    hidden_NH: Tensor
    labels_N: Tensor


class OnlineSource:
    """Runs the base for each micro-batch, without gradients.

    Args:
        model: Model whose base (`llm`) is run.
        rows: Training data.

    Raises:
        DataError: There are no rows, a row's tokens and labels do not belong together, a token is
            not in the vocabulary, or a row is longer than the base's context.
    """

    def __init__(self, model: AutoDecoForCausalLM, rows: Sequence[TokenRow]) -> None:
        _check_rows(model, rows)
        self.model = model
        self.rows = rows
        self.num_labels_R = np.array([row.num_labels for row in rows], dtype=np.int64)

    def micro_batch(self, rows: Sequence[int]) -> FeatureBatch:
        """Run the base; its last layer only where a row has a label."""
        ids_BS, mask_BS, next_BS = _padded([self.rows[i] for i in rows])
        kept = (next_BS != IGNORED).any(0).nonzero().squeeze(-1)
        if not len(kept):
            kept = torch.zeros(1, dtype=torch.long)  # one position without a label: a loss of 0
        device = self.model.device
        with torch.no_grad():
            features = self.model.features(
                ids_BS.to(device),
                attention_mask=mask_BS.to(device),
                use_cache=False,
                logits_to_keep=kept.to(device),
            )
        return FeatureBatch(
            features.logits_BTV.flatten(0, 1),
            features.hidden_BTH.flatten(0, 1),
            next_BS[:, kept].flatten().to(device),
        )

    def reads(self, head: TopPHead | None) -> AbstractContextManager[None]:
        """A context that corrects nothing; see `FeatureCache.reads`."""
        return nullcontext()


class _Meta(BaseModel):
    num_labels: int
    columns: int
    vocab_size: int = Field(description="Tokens that the base can give.")
    exact: bool
    tail_mass: float = Field(description="Mean over the positions.")
    data: str = Field(description="Fingerprint of the rows and the options.")
    base: str = Field(description="Fingerprint of the base's weights.")


class FeatureCache:
    """Features of a base on disk, memory-mapped; made by `dump_features`.

    Args:
        folder: Folder of the cache.
        device: Where micro-batches go.

    Attributes:
        num_labels: Positions with a label.
        num_labels_R: Positions of each row.
        exact: Whether the whole vocabulary is there.
        tail_mass: Mean probability of the tokens that are kept as one, 0.0 when exact.
        data: Fingerprint of the rows and options that the cache was made from.

    Raises:
        DataError: There is no complete cache.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu") -> None:
        self.folder = Path(folder)
        try:
            self._meta = _Meta.model_validate_json(read_text(self.folder / _META))
            self._hidden_MH, self._log_p_MC, self._label_M, self.num_labels_R = (
                np.load(self.folder / f"{name}.npy", mmap_mode="r")
                for name in ("hidden", "log_p", "label", "num_labels")
            )
        except (OSError, ValueError, ValidationError) as err:
            raise DataError(
                f"{str(folder)!r} has no complete features: {str(err).splitlines()[0]} Make them "
                "with `dump_features`."
            ) from err
        self._end_R = np.cumsum(self.num_labels_R)
        self._device = device
        self.num_labels, self.data = self._meta.num_labels, self._meta.data
        self.exact, self.tail_mass = self._meta.exact, self._meta.tail_mass

    def belongs_to(self, model: AutoDecoForCausalLM) -> bool:
        """Whether it was made with this base."""
        return self._meta.base == _base_fingerprint(model)

    def micro_batch(self, rows: Sequence[int]) -> FeatureBatch:
        """Read rows."""
        spans = [slice(self._end_R[i] - self.num_labels_R[i], self._end_R[i]) for i in rows]

        def read(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
            whole = np.concatenate([array[span] for span in spans])
            return torch.from_numpy(whole).to(self._device, dtype)

        return FeatureBatch(
            read(self._log_p_MC, torch.float32),
            read(self._hidden_MH, torch.float32),
            read(self._label_M, torch.long),
        )

    @contextmanager
    def reads(self, head: TopPHead | None) -> Iterator[None]:
        """A context in which the head reads the statistics that the whole model would give it.

        The third statistic is a variance over the columns, so it depends on their number much
        more than on what the tail is made of.
        """
        if self.exact or head is None or not head.enhanced:
            yield
            return
        C, V = self._meta.columns, self._meta.vocab_size

        def correct(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden, temperature, statistics_N4 = inputs
            squares_N = statistics_N4[..., 2] * (C - 1) + 1 / C  # sum of q^2
            variance_N = (squares_N - 1 / V).clamp_min(0) / (V - 1)
            columns = (*statistics_N4[..., :2].unbind(-1), variance_N, statistics_N4[..., 3])
            return hidden, temperature, torch.stack(columns, dim=-1)

        handle = head.register_forward_pre_hook(correct)
        try:
            yield
        finally:
            handle.remove()


FeatureSource = OnlineSource | FeatureCache


def dump_features(
    model: AutoDecoForCausalLM,
    rows: Sequence[TokenRow],
    folder: str | Path,
    *,
    top_k: int = 1024,
    dtype: CacheDtype = "float32",
    batch: int = 8,
) -> FeatureCache:
    """Run the base once over all rows and keep what the heads need.

    A position takes (H + min(V, top_k + 2)) * 4 bytes, half of that in float16.

    Args:
        model: Model whose base is run; its heads do not matter.
        rows: Rows made by `tokenize`.
        folder: Folder to write. A cache of the same rows, base and options there is used again;
            other features are replaced.
        top_k: Most likely tokens to keep. The whole vocabulary is kept when it has no more.
        dtype: Data type of hidden states and log-probabilities on disk.
        batch: Rows that run through the base together.

    Raises:
        DataError: Rows do not fit the base (see `OnlineSource`), the folder holds something else,
            the disk is too small, or hidden states overflow float16.
        ConfigError: `top_k` or `batch` is below 1, or `dtype` is unknown.
    """
    folder = Path(folder)
    for name, value in (("top_k", top_k), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"`{name}` is {value}, but must be at least 1.")
    if dtype not in get_args(CacheDtype):
        raise ConfigError(f"`dtype` is {dtype!r}, but must be float32 or float16.")
    source = OnlineSource(model, rows)
    data, base = fingerprint(rows, top_k, dtype), _base_fingerprint(model)
    if (folder / _META).exists():
        found = FeatureCache(folder, model.device)
        if found.data == data and found.belongs_to(model):
            return found
        _log.warning("%s is made anew: it has the features of other rows or another base.", folder)
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{str(folder)!r} exists and holds no features: give another folder.")
    with whole_folder(folder) as part:
        known = _write(source, part, top_k, dtype, batch)
        text = _Meta(data=data, base=base, **known).model_dump_json(indent=2)
        (part / _META).write_text(text + "\n", "utf-8")
    return FeatureCache(folder, model.device)


def _write(
    source: OnlineSource, folder: Path, top_k: int, dtype: CacheDtype, batch: int
) -> dict[str, Any]:
    """Write the arrays of a cache; returns what is known of them."""
    R, M = len(source.rows), int(source.num_labels_R.sum())
    if M == 0:
        raise DataError("No row has a label: there is nothing to learn from.")
    tail = 0.0
    vocab = columns = 0
    stored: torch.dtype = getattr(torch, dtype)
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for begin in range(0, R, batch):
            features = source.micro_batch(range(begin, min(begin + batch, R)))
            at_M = (features.labels_N != IGNORED).nonzero().squeeze(-1)
            if not files:
                H, V = features.hidden_NH.shape[1], features.logits_NV.shape[1]
                columns = top_k + 2 if top_k < V else V
                needed, free = M * (H + columns) * stored.itemsize, shutil.disk_usage(folder).free
                if needed > free:
                    raise DataError(
                        f"The features need {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB "
                        "are free. Keep fewer tokens (`top_k`), use "
                        '`cache_dtype="float16"`, or train without a cache.'
                    )
                for name, kind, shape in (
                    ("hidden", dtype, (M, H)),
                    ("log_p", dtype, (M, columns)),
                    ("label", "int32", (M,)),
                ):
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    # Written front to back: a full disk is an error here, but a crash in a
                    # memory-mapped file.
                    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(files[name], header)
            for at_C in at_M.split(_CHUNK):
                log_p_CC, label_C, seen, mass = _columns(
                    features.logits_NV[at_C], features.labels_N[at_C], top_k
                )
                vocab = max(vocab, seen)
                tail += mass
                files["log_p"].write(log_p_CC.to(stored).cpu().numpy().tobytes())
                files["label"].write(label_C.int().cpu().numpy().tobytes())
            hidden_MH = features.hidden_NH[at_M].to(stored)
            if dtype == "float16" and not hidden_MH.isfinite().all():
                raise DataError(
                    "The base's hidden states overflow float16. Keep features in float32 "
                    '(`cache_dtype="float32"`).'
                )
            files["hidden"].write(hidden_MH.cpu().numpy().tobytes())
    np.save(folder / "num_labels.npy", source.num_labels_R)
    return {
        "num_labels": M, "columns": columns, "vocab_size": vocab, "exact": columns <= top_k,
        "tail_mass": tail / M,
    }  # fmt: skip


def _columns(logits_MV: Tensor, label_M: Tensor, top_k: int) -> tuple[Tensor, Tensor, int, float]:
    """Log-probabilities to keep, each label's column in them, vocabulary, mass of the tails."""
    log_p_MV = logits_MV.float().log_softmax(-1)
    excluded_MV = log_p_MV.isneginf()
    vocab = int((~excluded_MV).sum(-1).max())
    # Only what is not part of the vocabulary is -inf, in float16 too.
    log_p_MV = log_p_MV.clamp_min(_LOWEST).masked_fill(excluded_MV, -torch.inf)
    if log_p_MV.shape[1] <= top_k:
        return log_p_MV, label_M, vocab, 0.0
    own_M1 = label_M.unsqueeze(-1)
    of_label_M1 = log_p_MV.gather(1, own_M1)
    log_p_MV.scatter_(1, own_M1, -torch.inf)
    best_MK = log_p_MV.topk(top_k)
    log_p_MV.scatter_(1, best_MK.indices, -torch.inf)
    tail_M1 = log_p_MV.logsumexp(-1, keepdim=True)
    # Each column counts as a token, so none may be -inf.
    log_p_MC = torch.cat([of_label_M1, best_MK.values, tail_M1], dim=-1).clamp_min(_LOWEST)
    return log_p_MC, torch.zeros_like(label_M), vocab, tail_M1.exp().sum().item()


def _padded(rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and the label that each position predicts, padded on the right."""
    ids = [torch.tensor(row.input_ids) for row in rows]
    labels = [torch.tensor([*row.labels[1:], IGNORED]) for row in rows]
    return (
        pad_sequence(ids, batch_first=True),
        pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    )


def _check_rows(model: AutoDecoForCausalLM, rows: Sequence[TokenRow]) -> None:
    """Refuse rows that the base cannot take."""
    if not rows:
        raise DataError(
            "There are no rows to train on. Were all left out? `tokenize` counts empty and too "
            "long ones."
        )
    text = model.config.get_text_config()
    vocab, limit = text.vocab_size, getattr(text, "max_position_embeddings", None)
    for number, row in enumerate(rows):
        size = len(row.input_ids)
        given = [label for label in row.labels if label != IGNORED]
        if not size or size != len(row.labels):
            problem = (
                f"{size} tokens and {len(row.labels)} labels: each token needs one, -100 where "
                "there is nothing to learn"
            )
        elif min(row.input_ids) < 0 or max(row.input_ids) >= vocab:
            problem = (
                f"a token outside of the base's vocabulary of {vocab}: it was made with another "
                "tokenizer"
            )
        elif given and not 0 <= min(given) <= max(given) < vocab:
            problem = f"a label that is neither {IGNORED} nor one of the base's {vocab} tokens"
        elif limit is not None and size > limit:
            problem = (
                f"{size} tokens, but the base's context is {limit}: pass `max_length={limit}` to "
                "`tokenize`"
            )
        else:
            continue
        raise DataError(f"Row {number} has {problem}.")


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of some bytes, one after another."""
    found = hashlib.sha256()
    for part in parts:  # never all at once: rows may be many
        found.update(part)
    return found.hexdigest()


def fingerprint(rows: Sequence[TokenRow], *options: Any) -> str:
    """A digest of training data and options."""
    data = ([list(row.input_ids), list(row.labels)] for row in rows)
    return digest(json.dumps(part).encode() for part in (options, *data))


def _base_fingerprint(model: AutoDecoForCausalLM) -> str:
    """A digest of the shapes of all parameters of the base and of some values of each."""
    return digest(
        f"{name} {tuple(parameter.shape)}".encode()
        + parameter.detach().flatten()[:32].double().cpu().numpy().tobytes()
        for name, parameter in model.llm.named_parameters()
    )
