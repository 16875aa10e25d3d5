"""Configuration of an AutoDeco model: the official keys, and the base's own keys beside them.

Source: the checkpoints of arXiv 2510.26697. `config.json` holds the base's keys flattened in.
"""

import copy
import re
import warnings
from dataclasses import fields
from typing import Any, ClassVar, cast

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hanol.autodeco._heads import Apply, DecodingLimits, Mask
from hanol.errors import ConfigError
from hanol.training import with_overrides

ARCHITECTURE = "AutoDecoModelForCausalLM"

# Older heads have these keys instead of `enable_temperature_head` and `enable_top_p_head`.
_OLDER = {"train_temp": "enable_temperature_head", "train_top_p": "enable_top_p_head"}
_SWITCHES = ("enable_temperature_head", "enable_top_p_head", "use_enhanced_features")
_WIDTHS = ("temperature_hidden_size", "top_p_hidden_size")
# Keys of hanol, written only where they are set: official files have none of them.
_SERVING = ("autodeco_truncation", "autodeco_limits", "autodeco_mask")
_FLAG = re.compile(
    r"(enable|train)_\w*(head|temp|temperature|top_p|min_p|top_k)"
    r"|use_\w*features|(temperature|top_p|min_p|top_k)_(hidden|head)\w*|autodeco_\w+"
)
# Sampling values of a generation config that leave logits as they are. An unset top-k is not
# among them: transformers makes it 50.
NEUTRAL = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


class AutoDecoConfig(PreTrainedConfig):
    """The switches of the heads, and the configuration of the base model.

    Every key of the base can be read and set on this object too (`config.vocab_size`); files hold
    them flattened, as the official ones do.

    Args:
        base_config: Configuration of the base. Read from the flattened keys when left out; None
            for older heads that lack them, until the base is loaded.
        enable_temperature_head: Whether there is a temperature head; None (older heads) takes
            what the weights have.
        enable_top_p_head: Whether there is a top-p head; None as above.
        use_enhanced_features: Whether the top-p head reads statistics of the distribution.
        base_model_name_or_path: Where the base was loaded from.
        base_model_type: `model_type` of the base.
        temperature_hidden_size: Width of the hidden state that the temperature head reads.
        top_p_hidden_size: Width of the hidden state that the top-p head reads.
        autodeco_truncation: Default truncation: "hard" (also None), "soft" or "none".
        autodeco_limits: Default values of `DecodingLimits`, by name.
        autodeco_mask: "finite" (also None) lowers the logits of excluded tokens by 1000, "inf"
            sets them to -inf, for software that looks for -inf.

    Raises:
        ConfigError: A key looks like a switch of AutoDeco but is not known, a switch is not true
            or false, a width is no whole number, or one of the last three has another value.
    """

    model_type = "autodeco"
    # Code of a checkpoint is never run. TRL asks every architecture that transformers lacks.
    auto_map: ClassVar[dict[str, str]] = {}
    # "llama" is never used: a base without its keys stays None.
    sub_configs_defaults = {  # noqa: RUF012
        "base_config": SubConfigSpec(AutoConfig, model_type="llama", optional=True)
    }

    base_config: Any = None
    enable_temperature_head: bool | None = None
    enable_top_p_head: bool | None = None
    use_enhanced_features: bool | None = None
    base_model_name_or_path: str | None = None
    base_model_type: str | None = None
    temperature_hidden_size: int | None = None
    top_p_hidden_size: int | None = None
    autodeco_truncation: str | None = None
    autodeco_limits: dict[str, Any] | None = None
    autodeco_mask: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for old, new in _OLDER.items():
            value = kwargs.pop(old, None)
            if getattr(self, new) is None:
                setattr(self, new, value)
        own = {
            key: kwargs.pop(key)
            for key in ("name_or_path", "attn_implementation", "experts_implementation")
            if key in kwargs
        }
        base = self.base_config or self._read_base(kwargs)
        self._check_flags(kwargs, base)
        # While transformers sets its own attributes, the base may answer or take none of them.
        self.base_config = None
        super().__post_init__(**own)
        self.architectures = [ARCHITECTURE]
        if base is not None:
            self.attach(base)
            for key in ("attn_implementation", "experts_implementation"):
                if own.get(key) is not None:
                    setattr(self, f"_{key}", own[key])

    def attach(self, base: PreTrainedConfig) -> None:
        """Make `base` the configuration of the base model, and fill what follows from it."""
        self.base_config = base
        self.base_model_type = base.model_type
        self.dtype = base.dtype
        self.is_encoder_decoder = base.is_encoder_decoder
        self._attn_implementation_internal = base._attn_implementation_internal
        self._experts_implementation_internal = base._experts_implementation_internal

    def _read_base(self, kwargs: dict[str, Any]) -> PreTrainedConfig | None:
        """The base's configuration from flattened keys; None when they are not there."""
        if self.base_model_type is None or not {"vocab_size", "text_config"} & kwargs.keys():
            return None
        known = {key: value for key, value in kwargs.items() if key != "model_type"}
        # These two are attributes of every configuration, so they did not come as extra keys.
        known |= {"dtype": self.dtype, "is_encoder_decoder": self.is_encoder_decoder}
        architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(self.base_model_type)
        if isinstance(architecture, str):
            known["architectures"] = [architecture]
        if self.base_model_name_or_path:
            known["name_or_path"] = self.base_model_name_or_path
        try:
            return AutoConfig.for_model(self.base_model_type, **known)
        except ValueError as err:
            raise ConfigError(
                f"`base_model_type` is {self.base_model_type!r}, and a configuration of that type "
                f"could not be made from the keys beside it: {err}"
            ) from err

    def _check_flags(self, kwargs: dict[str, Any], base: Any) -> None:
        of_base = set() if base is None else {field.name for field in fields(base)}
        unknown = sorted(key for key in kwargs if _FLAG.fullmatch(key) and key not in of_base)
        if unknown:
            raise ConfigError(
                f"`{unknown[0]}` is no key of an AutoDeco configuration. "
                f"Known: {', '.join(sorted({*_SWITCHES, *_WIDTHS, *_OLDER, *_SERVING}))}."
            )
        self.serving()
        for key in _SWITCHES:
            value = getattr(self, key)
            if not isinstance(value, bool | None):
                raise ConfigError(f"`{key}` is {value!r}, but must be true or false.")
        for key in _WIDTHS:
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"`{key}` is {value!r}, but must be a whole number above 0.")

    def serving(self) -> tuple[Apply, DecodingLimits, Mask]:
        """Default truncation, limits of temperature and top-p, and treatment of excluded tokens.

        Raises:
            ConfigError: One of the three keys has an unknown value.
        """
        truncation = self.autodeco_truncation or "hard"
        mask = self.autodeco_mask or "finite"
        for key, value, known in (
            ("autodeco_truncation", truncation, ("hard", "soft", "none")),
            ("autodeco_mask", mask, ("finite", "inf")),
        ):
            if value not in known:
                raise ConfigError(f"`{key}` is {value!r}, but must be one of {', '.join(known)}.")
        limits = with_overrides(
            DecodingLimits, dict(self.autodeco_limits or {}), None, "`autodeco_limits`"
        )
        return cast(Apply, truncation), limits, cast(Mask, mask)

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base_config")
        if base is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        base = self.__dict__.get("base_config")
        ours = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if base is not None and not ours and hasattr(base, name):
            setattr(base, name, value)
        else:
            super().__setattr__(name, value)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> PreTrainedConfig:
        """The base's text configuration: what sizes a cache and counts the vocabulary."""
        if self.base_config is None:
            return self
        return self.base_config.get_text_config(decoder=decoder, encoder=encoder)

    def _get_generation_parameters(self) -> dict[str, Any]:
        base = self.base_config
        return {} if base is None else base._get_generation_parameters()

    def to_dict(self) -> dict[str, Any]:
        """All keys as files hold them: the base's, and ours over them."""
        own = super().to_dict()
        for key in _SERVING:
            if own[key] is None:
                del own[key]
        base = own.pop("base_config", None)
        if base is None:
            return own
        common = {field.name for field in fields(PreTrainedConfig)} - {"architectures"}
        ours = {key: own[key] for key in own if key not in common or key not in base}
        return {**base, **ours, "dtype": own["dtype"] or base.get("dtype")}


def neutral(config: GenerationConfig) -> GenerationConfig:
    """A copy that samples from logits as they are: a base's values would act on AutoDeco's."""
    config = copy.deepcopy(config)
    for key, value in {**NEUTRAL, "do_sample": True}.items():
        if hasattr(config, key):
            setattr(config, key, value)
    return config


def warn_of_sampling(config: GenerationConfig, remedy: str, *, stacklevel: int) -> None:
    """Warn of values that would change AutoDeco's distribution; `remedy` tells what to do."""
    acting = [
        f"{key}={value}"
        for key, neutral_value in NEUTRAL.items()
        if (value := getattr(config, key, None)) not in (None, neutral_value)
    ]
    if acting:
        warnings.warn(
            f"{', '.join(acting)} would act on top of AutoDeco's own temperature and top-p. "
            f"{remedy}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
