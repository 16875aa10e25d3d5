"""Generate multi-hop questions with exact answers from a seed."""

from hanol.worlds import Encyclopedia

world = Encyclopedia(7)
for question in world.questions(3, hops=(1, 2, 3), seed=1):
    print(f"{question.hops} hops: {question.text}")
    print("  answer:", ", ".join(sorted(question.answers)))
    assert world.is_right(question, sorted(question.answers)[0])
print(len(world.pages), "pages, for example:")
print(world.pages[0].markdown[:200])
