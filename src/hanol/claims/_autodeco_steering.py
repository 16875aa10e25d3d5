"""autodeco.steering: words in the prompt move temperature and top-p."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

from hanol import decoding
from hanol.claims._claim import Claim, Measurement
from hanol.claims._small import mean_and_spread

_ROWS, _TEST = 400, 100
_TEMPLATE = "# {command}\n{prompt}"  # a comment above the code


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    values: dict[str, list[float]] = {}
    rows = _spread(decoding.function_rows(held_out=False), 8 if quick else _ROWS)
    test = _spread(decoding.function_rows(held_out=True), 3 if quick else _TEST)
    tokenizer = decoding.load_tokenizer("tiny-autodeco")
    for seed in seeds:
        model = decoding.AutoDecoForCausalLM.from_pretrained("tiny-autodeco")
        recipe = decoding.SteeringRecipe(
            steps=1 if quick else 150, batch=2 if quick else 16, seed=seed, template=_TEMPLATE,
            max_length=512,
        )  # fmt: skip
        with TemporaryDirectory() as folder:
            decoding.train_steering(model, tokenizer, rows, recipe, f"{folder}/run")
        report = decoding.steering_report(
            model, tokenizer, test, template=_TEMPLATE, max_length=512
        )
        for name, moved in (("temperature", report.temperature), ("top-p", report.top_p)):
            assert moved is not None
            for what, value in (
                ("without words", moved.base),
                ("less diverse", moved.low),
                ("more diverse", moved.high),
                ("moves down", moved.low_moves.share),
                ("moves down, low end", moved.low_moves.low),
                ("moves up", moved.high_moves.share),
                ("moves up, low end", moved.high_moves.low),
            ):
                values.setdefault(f"{name}: {what}", []).append(value)
    pairs = {name: mean_and_spread(over_seeds) for name, over_seeds in values.items()}
    figures = {name: pair[0] for name, pair in pairs.items()}

    def right(name: str) -> float:
        return (figures[f"{name}: moves down"] + figures[f"{name}: moves up"]) / 2

    shown = right("temperature") >= 0.95 and right("top-p") >= 0.85
    return Measurement(
        verdict="shown" if shown else "not shown",
        summary="Held-out words move the mean temperature of held-out functions the right way in "
        f"{right('temperature'):.0%} of the cases ({figures['temperature: without words']:.2f} "
        f"without, {figures['temperature: less diverse']:.2f} less and "
        f"{figures['temperature: more diverse']:.2f} more diverse), top-p in "
        f"{right('top-p'):.0%}.",
        figures=figures,
        spread={name: pair[1] for name, pair in pairs.items()},
    )


def _spread(rows: list[decoding.Row], number: int) -> list[decoding.Row]:
    return [rows[i * len(rows) // number] for i in range(number)]


STEERING = Claim(
    id="autodeco.steering",
    title='After some training, words such as "be more diverse" move temperature and top-p.',
    paper='Of 100 prompts, "low diversity" lowers T in 99 % and P in 97 %, "high diversity" '
    "raises them in 96 % and 85 % (arXiv 2510.26697, section 4.4; its training is not published, "
    "and the released heads do not have it).",
    scale="`tiny` with its bundled heads; 400 functions of the standard library with a comment of "
    "20 English and 20 Korean paraphrases for each direction above them, 150 steps of a ranking "
    "loss of ours; 100 functions of held-out modules, 10 held-out paraphrases for each direction.",
    expectation="Shown if, over both directions, at least 95 % move the right way for temperature "
    "and 85 % for top-p. `tiny` never learned instructions: the heads can only pick up what its "
    "frozen hidden states keep of a comment.",
    larger="`hanol autodeco steer` on an instruction-tuned model with conversations.",
    experiment=_measure,
)
