"""autodeco.steering: words in the prompt move temperature and top-p."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

from claims.figures import mean_and_spread
from hanol import autodeco
from hanol.claims import Claim, Measurement

_ROWS, _TEST = 400, 100
_TEMPLATE = "# {command}\n{prompt}"  # a comment above the code
_WORDS = autodeco.Commands(low=("certain",), high=("diverse",))


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    values: dict[str, list[float]] = {}
    for seed in seeds:
        for name, learned, asked in (
            ("a word", _WORDS, _WORDS),
            ("sentences", autodeco.TRAIN_COMMANDS, autodeco.TEST_COMMANDS),
        ):
            report = _steered(learned, asked, seed, quick)
            for head, moved in (("temperature", report.temperature), ("top-p", report.top_p)):
                assert moved is not None
                for what, value in (
                    ("without", moved.base),
                    ("less diverse", moved.low),
                    ("more diverse", moved.high),
                    ("moves down", moved.low_moves.value),
                    ("moves down, low end", moved.low_moves.low),
                    ("moves up", moved.high_moves.value),
                    ("moves up, low end", moved.high_moves.low),
                ):
                    values.setdefault(f"{name}, {head}: {what}", []).append(value)
    pairs = {name: mean_and_spread(over_seeds) for name, over_seeds in values.items()}
    figures = {name: pair[0] for name, pair in pairs.items()}

    def right(name: str) -> float:
        return (figures[f"{name}: moves down"] + figures[f"{name}: moves up"]) / 2

    shown = right("a word, temperature") >= 0.95 and right("a word, top-p") >= 0.85
    return Measurement(
        verdict="shown" if shown else "not shown",
        summary=f"The word {_WORDS.low[0]!r} or {_WORDS.high[0]!r} moves the mean temperature of "
        f"held-out functions the right way in {right('a word, temperature'):.0%} of the cases and "
        f"top-p in {right('a word, top-p'):.0%} (temperature "
        f"{figures['a word, temperature: without']:.3f} without, "
        f"{figures['a word, temperature: less diverse']:.3f} and "
        f"{figures['a word, temperature: more diverse']:.3f} with it). Sentences that were not "
        f"trained on: {right('sentences, temperature'):.0%} and {right('sentences, top-p'):.0%}.",
        figures=figures,
        spread={name: pair[1] for name, pair in pairs.items()},
    )


def _steered(
    learned: autodeco.Commands, asked: autodeco.Commands, seed: int, quick: bool
) -> autodeco.SteeringReport:
    """Heads of `tiny` that learned some commands, and what others do to held-out functions."""
    rows = _spread(autodeco.function_rows(held_out=False), 8 if quick else _ROWS)
    test = _spread(autodeco.function_rows(held_out=True), 3 if quick else _TEST)
    model = autodeco.AutoDecoForCausalLM.from_pretrained("tiny-autodeco")
    tokenizer = autodeco.load_tokenizer("tiny-autodeco")
    recipe = autodeco.SteeringSettings(
        steps=1 if quick else 150, batch=2 if quick else 16, seed=seed, template=_TEMPLATE,
        max_length=512,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        autodeco.train_steering(model, tokenizer, rows, recipe, f"{folder}/run", commands=learned)
    return autodeco.steering_report(
        model, tokenizer, test, asked, template=_TEMPLATE, max_length=512
    )


def _spread(rows: list[autodeco.Row], number: int) -> list[autodeco.Row]:
    return [rows[i * len(rows) // number] for i in range(number)]


STEERING = Claim(
    id="autodeco.steering",
    title='After some training, words such as "be more diverse" move temperature and top-p.',
    paper='Of 100 prompts, "low diversity" lowers T in 99 % and P in 97 %, "high diversity" '
    "raises them in 96 % and 85 % (arXiv 2510.26697, section 4.4; its training is not published, "
    "and the released heads do not have it).",
    scale="`tiny` with its bundled heads, twice: 400 functions of the standard library with a "
    "comment above them, 150 steps of a ranking loss of ours, 100 functions of held-out modules. "
    'Once the comment is one word for each direction, "certain" and "diverse"; once it is one of '
    "20 English and 20 Korean sentences for each direction, and one of 10 others in the test.",
    expectation="Shown if the word moves at least 95 % of held-out functions the right way for "
    "temperature and 85 % for top-p, over both directions. `tiny` has learned neither English nor "
    "Korean, so sentences that were not trained on are expected to do nothing; they are reported. "
    "(A first run had sentences only, and the same bounds: 50 % and 49 %, not shown. One word was "
    "then tried on one seed and 100 steps, 99 % and 91 %, before this was written.)",
    larger="A recipe of the kind steering on an instruction-tuned model with conversations.",
    experiment=_measure,
)
