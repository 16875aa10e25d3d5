"""What the heads are trained on: hidden states, log-probabilities and labels of the base.

Two sources give the same micro-batches. `OnlineSource` runs the base each time. `FeatureCache` has
run it once and reads files; then a step costs no forward pass of the base.

A cache keeps log-probabilities in the place of logits: the losses do not see the difference. It
keeps all of a vocabulary of up to `top_k` tokens. Of a larger one it keeps the label, the `top_k`
most likely others, and the mass of all the rest as one token: exact at T = 1, and what the rest
would lose or win at another temperature is missing. `tail_mass` says how much that is about.

Shape suffixes: B rows of a micro-batch, S their longest length, N positions of all rows of a batch,
R rows in all, M positions with a label, V vocabulary, H hidden width, K kept tokens, C columns of a
cache.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from hanol.autodeco._heads import TopPHead
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._data import TokenRow
from hanol.autodeco.training._loss import IGNORED
from hanol.errors import ConfigError, DataError
from hanol.files import whole_folder

CacheDtype = Literal["float32", "float16"]

_META = "features.json"
_LOWEST = -6e4  # a log-probability that float16 can hold
_CHUNK = 256  # rows as wide as the vocabulary that are worked on together


class FeatureBatch(NamedTuple):
    """What `autodeco_loss` takes: logits of the base, hidden states, the token after each."""

    logits_NV: Tensor
    hidden_NH: Tensor
    labels_N: Tensor


class FeatureSource(Protocol):
    """Rows of training data by number."""

    num_labels_R: NDArray[np.int64]

    def micro_batch(self, rows: Sequence[int]) -> FeatureBatch:
        """The features of some rows, one after another."""
        ...

    def reads(self, head: TopPHead | None) -> Any:
        """A context in which the head gets the statistics that it will get from the model."""
        ...


class OnlineSource:
    """Runs the base for each micro-batch, without gradients.

    Args:
        model: The base is its `llm`.
        rows: Training data.

    Raises:
        DataError: There are no rows, a row's tokens and labels do not belong together, a token is
            not in the vocabulary, or a row is longer than the base's context.
    """

    def __init__(self, model: AutoDecoForCausalLM, rows: Sequence[TokenRow]) -> None:
        check_rows(model, rows)
        self.model = model
        self.rows = rows
        self.num_labels_R = np.array([row.num_labels for row in rows], dtype=np.int64)

    def micro_batch(self, rows: Sequence[int]) -> FeatureBatch:
        """Run the base; its last layer only where a row has a label."""
        ids_BS, mask_BS, next_BS = padded([self.rows[i] for i in rows])
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

    @contextmanager
    def reads(self, head: TopPHead | None) -> Iterator[None]:
        """Nothing to correct."""
        yield


class _Meta(BaseModel):
    num_rows: int
    num_labels: int
    hidden_size: int
    columns: int
    vocab_size: int = Field(description="Tokens that the base can give.")
    exact: bool
    dtype: CacheDtype
    tail_mass: float = Field(description="Mean over the positions.")
    data: str = Field(description="Fingerprint of the rows and the options.")
    base: str = Field(description="Fingerprint of the base's weights.")


class FeatureCache:
    """Features of a base on disk, memory-mapped; made by `dump_features`.

    Args:
        folder: Where it lies.
        device: Where micro-batches go.

    Attributes:
        num_rows: Rows.
        num_labels: Positions with a label.
        num_labels_R: Positions of each row.
        exact: Whether the whole vocabulary is there.
        tail_mass: Mean probability of the tokens that are one, 0.0 when exact.

    Raises:
        DataError: There is no complete cache.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu") -> None:
        self.folder = Path(folder)
        try:
            self._meta = _Meta.model_validate_json((self.folder / _META).read_text("utf-8"))
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
        self.num_rows, self.num_labels = self._meta.num_rows, self._meta.num_labels
        self.exact, self.tail_mass = self._meta.exact, self._meta.tail_mass

    @property
    def data(self) -> str:
        """Fingerprint of the rows and options that it was made of."""
        return self._meta.data

    def belongs_to(self, model: AutoDecoForCausalLM) -> bool:
        """Whether it was made with this base."""
        return self._meta.base == base_fingerprint(model)

    def to(self, device: torch.device | str) -> "FeatureCache":
        """The same cache with micro-batches on another device."""
        return FeatureCache(self.folder, device)

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
        """While it lasts, the third statistic is that of the whole vocabulary.

        It is a variance over the columns, so it depends on their number much more than on what the
        tail is made of.
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


def dump_features(
    model: AutoDecoForCausalLM,
    rows: Sequence[TokenRow],
    folder: str | Path,
    *,
    top_k: int = 1024,
    dtype: CacheDtype = "float32",
    batch: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Run the base once over all rows and keep what the heads need.

    A position takes (H + min(V, top_k + 2)) * 4 bytes, half of that in float16.

    Args:
        model: With the base to run; its heads do not matter.
        rows: From `tokenize`.
        folder: Where the features go. What was made there of the same rows, base and options is
            used again; other features are replaced.
        top_k: Most likely tokens to keep. The whole vocabulary is kept when it has no more.
        dtype: Of hidden states and log-probabilities.
        batch: Rows that run through the base together.
        on_progress: Called with the rows done and their number.

    Raises:
        DataError: Rows do not fit the base (see `OnlineSource`), the folder holds something else,
            the disk is too small, or hidden states overflow float16.
        ConfigError: `top_k` or `batch` is below 1.
    """
    folder = Path(folder)
    for name, value in (("top_k", top_k), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"`{name}` is {value}, but must be at least 1.")
    source = OnlineSource(model, rows)
    data, base = fingerprint(rows, top_k, dtype), base_fingerprint(model)
    if (folder / _META).exists():
        found = FeatureCache(folder, model.device)
        if found.data == data and found.belongs_to(model):
            return found
    elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{str(folder)!r} exists and holds no features: give another folder.")
    with whole_folder(folder) as part:
        meta = _write(source, part, top_k, dtype, batch, on_progress, {"data": data, "base": base})
        (part / _META).write_text(meta.model_dump_json(indent=2) + "\n", "utf-8")
    return FeatureCache(folder, model.device)


def _write(
    source: OnlineSource,
    folder: Path,
    top_k: int,
    dtype: CacheDtype,
    batch: int,
    on_progress: Callable[[int, int], None] | None,
    fingerprints: dict[str, str],
) -> _Meta:
    R, M = len(source.rows), int(source.num_labels_R.sum())
    if M == 0:
        raise DataError("No row has a label: there is nothing to learn from.")
    tail = 0.0
    vocab = columns = hidden_size = 0
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for begin in range(0, R, batch):
            rows = range(begin, min(begin + batch, R))
            features = source.micro_batch(rows)
            at_M = (features.labels_N != IGNORED).nonzero().squeeze(-1)
            hidden_MH = features.hidden_NH[at_M].float()
            parts = [
                _columns(features.logits_NV[at_C], features.labels_N[at_C], top_k)
                for at_C in at_M.split(_CHUNK)
            ]
            if not files:
                hidden_size, V = hidden_MH.shape[1], features.logits_NV.shape[1]
                columns = top_k + 2 if top_k < V else V
                size = M * (hidden_size + columns) * np.dtype(dtype).itemsize
                _check_space(folder, size)
                for name, kind, shape in (
                    ("hidden", dtype, (M, hidden_size)),
                    ("log_p", dtype, (M, columns)),
                    ("label", "int32", (M,)),
                ):
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    _begin(files[name], kind, shape)
            for part in parts:
                vocab = max(vocab, part.vocab_size)
                tail += part.tail_mass
                files["log_p"].write(_bytes(part.log_p_MC, dtype, "log-probabilities"))
                files["label"].write(_bytes(part.label_M, "int32", "labels"))
            files["hidden"].write(_bytes(hidden_MH, dtype, "hidden states"))
            if on_progress is not None:
                on_progress(rows[-1] + 1, R)
    np.save(folder / "num_labels.npy", source.num_labels_R)
    return _Meta(
        num_rows=R,
        num_labels=M,
        hidden_size=hidden_size,
        columns=columns,
        vocab_size=vocab,
        exact=columns <= top_k,
        dtype=dtype,
        tail_mass=tail / M,
        **fingerprints,
    )


class _Columns(NamedTuple):
    log_p_MC: Tensor
    label_M: Tensor
    vocab_size: int
    tail_mass: float


def _columns(logits_MV: Tensor, label_M: Tensor, top_k: int) -> _Columns:
    """Log-probabilities to keep, and the column of each label among them."""
    log_p_MV = logits_MV.float().log_softmax(-1)
    excluded_MV = log_p_MV.isneginf()
    vocab = int((~excluded_MV).sum(-1).max())
    # What is not part of the vocabulary stays -inf, in float16 too; the rest does not become it.
    log_p_MV = log_p_MV.clamp_min(_LOWEST).masked_fill(excluded_MV, -torch.inf)
    if log_p_MV.shape[1] <= top_k:
        return _Columns(log_p_MV, label_M, vocab, 0.0)
    own_M1 = label_M.unsqueeze(-1)
    of_label_M1 = log_p_MV.gather(1, own_M1)
    log_p_MV.scatter_(1, own_M1, -torch.inf)
    best_MK = log_p_MV.topk(top_k)
    log_p_MV.scatter_(1, best_MK.indices, -torch.inf)
    tail_M1 = log_p_MV.logsumexp(-1, keepdim=True)
    # Each column counts as a token, so none may be -inf.
    log_p_MC = torch.cat([of_label_M1, best_MK.values, tail_M1], dim=-1).clamp_min(_LOWEST)
    return _Columns(log_p_MC, torch.zeros_like(label_M), vocab, tail_M1.exp().sum().item())


def padded(rows: Sequence[TokenRow]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, attention mask and the label that each position predicts, filled up on the right."""
    width = max(len(row.input_ids) for row in rows)
    ids_BS = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BS = torch.zeros_like(ids_BS)
    next_BS = torch.full_like(ids_BS, IGNORED)
    for row, ids_S, mask_S, next_S in zip(rows, ids_BS, mask_BS, next_BS, strict=True):
        S = len(row.input_ids)
        ids_S[:S] = torch.as_tensor(row.input_ids)
        mask_S[:S] = 1
        next_S[: S - 1] = torch.as_tensor(row.labels[1:])
    return ids_BS, mask_BS, next_BS


def check_rows(model: AutoDecoForCausalLM, rows: Sequence[TokenRow]) -> None:
    """Refuse rows that the base cannot take.

    Raises:
        DataError: See `OnlineSource`.
    """
    if not rows:
        raise DataError(
            "There are no rows to train on. Were all left out? `tokenize` counts empty and too "
            "long ones."
        )
    text = model.config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    for number, row in enumerate(rows):
        if not row.input_ids or len(row.input_ids) != len(row.labels):
            raise DataError(
                f"Row {number} has {len(row.input_ids)} tokens and {len(row.labels)} labels: each "
                "token needs one, -100 where there is nothing to learn."
            )
        if min(row.input_ids) < 0 or max(row.input_ids) >= text.vocab_size:
            raise DataError(
                f"Row {number} has a token outside of the base's vocabulary of {text.vocab_size}: "
                "it was made with another tokenizer."
            )
        given = [label for label in row.labels if label != IGNORED]
        if given and not 0 <= min(given) <= max(given) < text.vocab_size:
            raise DataError(
                f"Row {number} has a label that is neither {IGNORED} nor one of the base's "
                f"{text.vocab_size} tokens."
            )
        if limit is not None and len(row.input_ids) > limit:
            raise DataError(
                f"Row {number} has {len(row.input_ids)} tokens, but the base's context is {limit}. "
                f"Pass `max_length={limit}` to `tokenize`."
            )


def fingerprint(rows: Sequence[TokenRow], *options: Any) -> str:
    """A digest of training data and options."""
    digest = hashlib.sha256(json.dumps(options).encode())
    for row in rows:
        digest.update(json.dumps([list(row.input_ids), list(row.labels)]).encode())
    return digest.hexdigest()


def base_fingerprint(model: AutoDecoForCausalLM) -> str:
    """A digest of the shapes of all parameters of the base and of some values of each."""
    digest = hashlib.sha256()
    for name, parameter in model.llm.named_parameters():
        some = parameter.detach().flatten()[:32].double().cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + some.tobytes())
    return digest.hexdigest()


def _begin(file: Any, dtype: str, shape: tuple[int, ...]) -> None:
    # Written front to back: a full disk is an error here, but a crash in a memory-mapped file.
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)


def _bytes(values: Tensor, dtype: str, what: str) -> bytes:
    with np.errstate(over="ignore"):  # looked at below
        array = values.cpu().numpy().astype(dtype)
    if dtype == "float16" and what == "hidden states" and not np.isfinite(array).all():
        raise DataError(
            f"The base's {what} overflow float16. Keep features in float32 "
            '(`cache_dtype="float32"`).'
        )
    return array.tobytes()


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DataError(
            f"The features need {num_bytes / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free. "
            'Keep fewer tokens (`top_k`), use `cache_dtype="float16"`, or train without a cache.'
        )
