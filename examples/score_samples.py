"""Check answers and say how sure a score is: pass@k and 95 % intervals."""

from hanol.scoring import check_answer, pass_at_k, wilson

answers = ["The sum is 12.", "so \\boxed{12}", "13", "I get 12", "11", "12.0"]
right = [check_answer(answer, "12").right for answer in answers]
n, c = len(right), sum(right)
print("right:", right)
print(f"pass@1 {pass_at_k(n, c, 1):.2f}, pass@3 {pass_at_k(n, c, 3):.2f}")
print("95 % interval of the accuracy:", wilson(c, n))
