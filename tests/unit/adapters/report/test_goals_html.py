"""Several goals and the rounds of a search, on the page."""

import re
from dataclasses import replace

from pareto_samples import QUALITY, ROUNDS, TOKENS, several, told
from report_kinds import ALL, EVIL
from report_sample import NOON, sample
from test_html import Page

from dspy_optimization.adapters.report.facts import report
from dspy_optimization.adapters.report.html import render


def section(text: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', text, re.DOTALL)
    assert found is not None
    return found.group(0)


def test_the_front_is_told_in_pictures_and_in_a_table() -> None:
    """Labelled optimistic beside the sealed verdict; the policy's reason; who cannot be told apart."""
    shown = ALL["two goals"]
    trade = section(render(shown), "trade")
    words = Page(trade).words

    assert shown.pareto is not None
    assert shown.pareto.pick is not None
    assert "Measured on val: optimistic" in words
    assert f"The sealed verdict: {shown.statement.label}" in words
    assert shown.pareto.pick.reason in words
    assert "hurts a guardrail" in words
    assert "cannot be told apart from" in words
    assert "2,000 samples of the val examples" in words
    assert len(shown.pareto.listed) == len(re.findall(r"<tr[^>]*><th scope=\"row\"", trade))
    assert 1 == trade.count('<tr class="chosen"')
    assert "How the front grew" in words
    assert 6 == trade.count('class="chart ')  # pair, all goals, volume; wide and narrow


def test_three_goals_are_small_multiples() -> None:
    """Every pair, under a heading of its own."""
    trade = section(render(ALL["three goals"]), "trade")

    assert 'class="pairs many"' in trade
    assert all(name in trade for name in ("exact_match against tokens", "tokens against latency_seconds"))


def test_one_goal_shows_nothing_of_it() -> None:
    """No section, no link to one."""
    text = render(sample())

    assert "trade" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert "Pareto" not in text
    assert 'id="rounds"' not in text


def test_rounds_say_what_was_tried_and_why_the_model_was_doubted() -> None:
    """Ways with tries and wins; trust in words; and that a forecast is no score."""
    words = Page(section(render(ALL["two goals"]), "rounds")).words

    assert "genetic : 5 rounds" in words or "genetic: 5 rounds" in words
    assert "40 candidates met the agent in 540 runs on val examples, of 1,000 at most" in words
    assert "champion 7 2.9 41.4%" in words
    assert "3 to 4 38% to 41% nothing spoke against it" in words
    assert "features do not foretell candidates never run" in words
    assert "is never a score" in words


def test_nothing_the_model_expected_is_shown() -> None:
    """A score that an algorithm told of with a round stands nowhere: only measured ones are shown."""
    foretold = tuple(
        replace(one, event=replace(one.event, data={**one.event.data, "score": 0.98765, "expected": 0.98765}))
        for one in ROUNDS
    )

    text = render(report(several((QUALITY, TOKENS), events=foretold), NOON))

    assert 'id="rounds"' in text
    assert "0.98765" not in text
    assert "0.988" not in text
    assert "98.8%" not in text


def test_candidates_of_two_parents_have_two_lines_and_both_names() -> None:
    """In the picture and in the table; what was crossed stands below both."""
    shown = ALL["two goals"]
    crossed = [one for one in shown.family if len(one.parents) == 2]
    family = section(render(shown), "family")
    by_name = {one.fingerprint: one for one in shown.family}

    assert 2 == len(crossed)
    assert all(one.generation > max(by_name[parent].generation for parent in one.parents) for one in crossed)
    edges = sum(len(one.parents) for one in shown.family)
    assert 2 * edges == len(re.findall(r'class="edge(?: chosen)?"', family))
    for one in crossed:
        assert f"{one.parents[0][:7]} {one.parents[1][:7]} " in family


def test_reasons_and_names_from_strangers_are_text() -> None:
    """A policy's reason, an algorithm's name, a way and a doubt that would like to be markup."""
    material = several()
    assert material.result is not None
    assert material.result.pick is not None
    evil = told(1, 0.0, EVIL)
    named = replace(
        evil,
        event=replace(
            evil.event,
            data={**evil.event.data, "algorithm": EVIL, "operators": {EVIL: {"tries": 1, "wins": 1}}},
        ),
    )
    pick = replace(material.result.pick, reason=EVIL)

    text = render(report(replace(material, result=replace(material.result, pick=pick), events=(named,)), NOON))

    assert "<script" not in text
    assert "<img" not in text
    assert "onerror=alert(2)&gt;" in section(text, "trade")
    assert "onerror=alert(2)&gt;" in section(text, "rounds")


def test_an_older_result_without_a_reason_says_so() -> None:
    """A front without a pick."""
    material = several()
    assert material.result is not None

    assert "did not say why" in render(report(replace(material, result=replace(material.result, pick=None)), NOON))
