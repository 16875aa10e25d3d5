"""An engine whose every answer is thought about: strategies for whatever talks to an engine."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hanol.engines import Completion, Engine, Request, Usage, WrappedEngine
from hanol.errors import EngineError
from hanol.scoring import StepScorer
from hanol.test_time._prompts import ThinkSettings
from hanol.test_time._run import check_fits
from hanol.test_time._think import athink
from hanol.test_time.searches import strategy_class

if TYPE_CHECKING:
    from hanol.test_time._policy import PolicyTable


class ThinkingEngine(WrappedEngine):
    """Answers each request by a strategy of `hanol.test_time`, and takes no other requests.

    The problem is the last message, which is the user's; earlier ones stand before it. Solutions
    are drawn as the settings say, which a policy was fitted for: of a request's own sampling the
    seed alone counts. The text is that of the chosen solution, and the usage that of all samples.

    Args:
        engine: Samples solutions.
        verifier: Scores steps, for strategies that need it.
        strategy: A name of `strategy_names()`, or "auto".
        budget: Complete answers' worth of tokens at most, for each request.
        policy: For "auto"; without one it is the adaptive vote.
        settings: How solutions are sampled.
        options: Further arguments of the strategy.

    Raises:
        ConfigError: The strategy needs a verifier, or the policy is that of another model or
            template.
        CapabilityError: The engine cannot do what the strategy needs.

    Example:
        >>> policy = PolicyTable.load("runs/policy/policy.json")  # doctest: +SKIP
        >>> thinking = ThinkingEngine(open_engine("smollm2"), policy=policy)  # doctest: +SKIP
        >>> await thinking.complete(Request((Message("user", "7 + 5 + 9 = ?"),)))  # doctest: +SKIP
    """

    def __init__(
        self,
        engine: Engine,
        verifier: StepScorer | None = None,
        *,
        strategy: str = "auto",
        budget: int = 16,
        policy: "PolicyTable | None" = None,
        settings: ThinkSettings | None = None,
        **options: Any,
    ) -> None:
        super().__init__(engine)
        self.capabilities = frozenset()
        self._verifier, self._strategy, self._budget = verifier, strategy, budget
        self._policy, self._settings = policy, settings or ThinkSettings()
        self._options = options
        check_fits(strategy_class("adaptive" if strategy == "auto" else strategy), engine, verifier)
        if policy is not None:
            policy.check(engine, self._settings)

    async def complete(self, request: Request) -> Completion:
        """The chosen solution; its end is "length" where none came to an end."""
        self.check(request)
        *before, last = request.messages
        if last.role != "user":
            raise EngineError(
                f"The last message is the {last.role}'s, but a problem is the user's: a thinking "
                "engine answers problems."
            )
        settings, seed = self._settings, request.sampling.seed
        drawn = settings.sampling if seed is None else replace(settings.sampling, seed=seed)
        thought = await athink(
            last.text, self.engine, self._verifier, strategy=self._strategy, budget=self._budget,
            options=self._options, policy=self._policy,
            settings=replace(settings, sampling=drawn, before=(*settings.before, *before)),
        )  # fmt: skip
        spent = thought.ledger
        usage = Usage(spent.prompt_tokens, spent.generated_tokens, spent.cached_tokens)
        return Completion.of(thought.text, "stop" if thought.text else "length", usage)
