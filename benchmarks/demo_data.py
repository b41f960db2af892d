"""Writes the demo's dataset anew: messages of customers, each with one order number among other numbers.

Half of the test messages follow templates that neither train nor val has. Synthetic and seeded: the same file every
time, which `tests/unit/cli/test_demo_data.py` checks.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = (
    "Anna Berg",
    "John Miller",
    "Maria Lopez",
    "Felix Grant",
    "Simon Duval",
    "Emma Brown",
    "Peter Walsh",
    "Olivia Stone",
    "Liam Novak",
    "Sara Lind",
)
CITIES = ("Vienna", "Lisbon", "Sydney", "Athens", "Zurich", "Milan", "Oslo", "Denver")
PRODUCTS = ("camera", "phone", "tablet", "laptop", "smartwatch", "printer", "kettle", "lamp")
GREETINGS = ("Hello", "Hi", "Good morning", "Dear team")
TROUBLES = (
    "arrived broken",
    "never arrived",
    "stopped working after a week",
    "has the wrong colour",
    "makes a strange noise",
)
WISHES = ("Can you help?", "I want a refund.", "Please send a new one.", "What should I do now?")
MONTHS = ("March", "May", "July", "October")
SEEN = (
    "{hi}, this is {name} from {city}. My {product}, order {order}, {trouble}. I paid {dollars} dollars. {wish}",
    "{hi}. The {product} {trouble}. I ordered it in {city} under number {order} and paid {dollars} dollars. {wish} {name}",
    "{hi}, order {order} is wrong: the {product} {trouble}. {wish} Please call me at {phone}. {name}, {city}",
    "{hi}. I live in {city} and bought a {product} for {dollars} dollars. It {trouble}. My order is {order}. {wish} {name}",
    "{wish} My {product} {trouble}. Phone {phone}, order {order}. {name} in {city}",
    "{hi}, I am {name}. On {date} I bought a {product} for {dollars} dollars and it {trouble}. Order no. {order}. {wish}",
    "{hi}. Customer {customer} here. The {product} from order {order} {trouble}. {wish} {name}",
    "{hi}, the {product} {trouble}. {wish} Order: {order}. Phone: {phone}. Name: {name}.",
)
UNSEEN = (
    "{hi}, I have waited {weeks} weeks. The {product} of my purchase {order} {trouble}. {wish} Thanks, {name} ({phone})",
    "{name} here, calling from {city} at {phone}. About #{order}: the {product} {trouble}. {wish}",
    "{hi}. I spent {dollars} dollars on a {product} on {date}, it {trouble}. You gave me the number {order} for it. {wish}",
    "Subject: order {order}. {hi}, customer {customer} again. My {product} {trouble}. {wish} {name}, {city}",
)


def records() -> Iterator[dict[str, str]]:
    """Yield every row of the file in its order."""
    yield from _rows("train", 40, SEEN, seed=1)
    yield from _rows("val", 32, SEEN, seed=2)
    yield from _rows("test", 60, SEEN, seed=3)
    yield from _rows("test", 60, UNSEEN, seed=4)


def _rows(split: str, count: int, templates: Sequence[str], *, seed: int) -> Iterator[dict[str, str]]:
    chance = random.Random(seed)
    for index in range(count):
        order = str(chance.randint(10_000, 99_999))
        message = templates[index % len(templates)].format(
            hi=chance.choice(GREETINGS),
            name=chance.choice(NAMES),
            city=chance.choice(CITIES),
            product=chance.choice(PRODUCTS),
            order=order,
            dollars=chance.randint(20, 900),
            phone=f"555-{chance.randint(1000, 9999)}",
            date=f"{chance.choice(MONTHS)} {chance.randint(1, 28)}",
            customer=chance.randint(1000, 9999),
            weeks=chance.randint(2, 9),
            trouble=chance.choice(TROUBLES),
            wish=chance.choice(WISHES),
        )
        yield {"message": message, "order": order, "split": split}


def main() -> None:
    """Write the file into the package."""
    target = Path(__file__).parent.parent / "src" / "dspy_optimization" / "cli" / "demo" / "orders.jsonl"
    target.write_text("".join(f"{json.dumps(row)}\n" for row in records()), encoding="utf-8")


if __name__ == "__main__":
    main()
