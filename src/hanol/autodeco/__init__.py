"""AutoDeco: a model that chooses its temperature and top-p for every token.

The heads and the model that carries them (`AutoDecoForCausalLM`, `AutoDecoHook` for a model that
keeps its class), the truncation it samples with (`top_p_keep`) and the differentiable one it is
trained through (`soft_top_p`, `autodeco_loss`), the official checkpoint layouts (`merge`, `split`,
`inspect`), what was chosen for every token of a text (`trace`, `DecodingTrace`), and training:
rows (`read_rows`, `tokenize`), heads (`train_heads`) and heads that follow commands
(`train_steering`). Settings are compared, and verified samples drawn, by `hanol.evaluation`.

Importing this room makes "autodeco" known to transformers' Auto classes.
Source: arXiv 2510.26697.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names
from hanol.lazy import when_imported as _when_imported

if _typing.TYPE_CHECKING:
    from hanol.autodeco._config import AutoDecoConfig
    from hanol.autodeco._formats import HeadsReport, inspect, merge, split
    from hanol.autodeco._heads import DecodingLimits, TemperatureHead, TopPHead, statistics
    from hanol.autodeco._hook import AutoDecoHook, custom_generate
    from hanol.autodeco._model import AutoDecoForCausalLM, AutoDecoOutput
    from hanol.autodeco._render import DecodingTrace, TemperatureScale, TracedToken
    from hanol.autodeco._trace import trace
    from hanol.autodeco._wrapped import Features
    from hanol.autodeco.training._data import (
        Row,
        Tokenized,
        TokenRow,
        function_rows,
        prompt_ids,
        read_rows,
        tokenize,
        write_rows,
    )
    from hanol.autodeco.training._features import FeatureCache, OnlineSource, dump_features
    from hanol.autodeco.training._grpo import AutoDecoGRPOTrainer
    from hanol.autodeco.training._loss import LossSettings, autodeco_loss
    from hanol.autodeco.training._recipes import (
        HeadsRecipe,
        SteeringRecipe,
        SteeringResult,
        open_heads,
        run_steering,
        training_rows,
    )
    from hanol.autodeco.training._steer import (
        TEST_COMMANDS,
        TRAIN_COMMANDS,
        Commands,
        SteeringReport,
        SteeringSettings,
        steering_report,
        train_steering,
        with_command,
    )
    from hanol.autodeco.training._train import HeadsResult, HeadsSettings, train_heads
    from hanol.models import load_tokenizer

__getattr__, __dir__ = _lazy_names(__name__)


def _make_known() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from hanol.autodeco._config import AutoDecoConfig
    from hanol.autodeco._model import AutoDecoForCausalLM

    AutoConfig.register(AutoDecoConfig.model_type, AutoDecoConfig, exist_ok=True)
    AutoModelForCausalLM.register(AutoDecoConfig, AutoDecoForCausalLM, exist_ok=True)


_when_imported("transformers.models.auto.modeling_auto", _make_known, settled=("hanol",))

__all__ = [
    "TEST_COMMANDS",
    "TRAIN_COMMANDS",
    "AutoDecoConfig",
    "AutoDecoForCausalLM",
    "AutoDecoGRPOTrainer",
    "AutoDecoHook",
    "AutoDecoOutput",
    "Commands",
    "DecodingLimits",
    "DecodingTrace",
    "FeatureCache",
    "Features",
    "HeadsRecipe",
    "HeadsReport",
    "HeadsResult",
    "HeadsSettings",
    "LossSettings",
    "OnlineSource",
    "Row",
    "SteeringRecipe",
    "SteeringReport",
    "SteeringResult",
    "SteeringSettings",
    "TemperatureHead",
    "TemperatureScale",
    "TokenRow",
    "Tokenized",
    "TopPHead",
    "TracedToken",
    "autodeco_loss",
    "custom_generate",
    "dump_features",
    "function_rows",
    "inspect",
    "load_tokenizer",
    "merge",
    "open_heads",
    "prompt_ids",
    "read_rows",
    "run_steering",
    "split",
    "statistics",
    "steering_report",
    "tokenize",
    "trace",
    "train_heads",
    "train_steering",
    "training_rows",
    "with_command",
    "write_rows",
]
