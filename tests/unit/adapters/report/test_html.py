"""The report as one file: complete in itself, safe to open, readable by everybody."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_kinds import ALL, DATA, STORY
from report_sample import (
    BASELINE,
    CLASSIFY,
    candidate,
    material,
    results,
    sample,
    trial,
)

from dspy_optimization.adapters.report.html import MOST_EXAMPLES, render, write
from dspy_optimization.adapters.report.summary import plain, summary
from dspy_optimization.adapters.report.word_changes import component_changes
from dspy_optimization.agents.candidate import Candidate, ComponentValue
from dspy_optimization.agents.component_settings import ComponentSettings
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.metric import Score
from dspy_optimization.errors import InvalidRequestError

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """A page as a browser sees it: tags with their attributes, ids, balanced or not."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def named(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=ALL, ids=str)
def page(request: pytest.FixtureRequest) -> Page:
    """Every kind of report, parsed."""
    return Page(render(ALL[request.param]))


def test_nothing_is_asked_for_and_nothing_runs(page: Page) -> None:
    """No script, no inline style, no handler, no address but the page's own; opens from a disk."""
    names = {tag for tag, _ in page.tags}
    attributes = [(name, value) for _, found in page.tags for name, value in found.items()]

    assert set() == names & {"script", "iframe", "object", "embed", "form", "img", "base", "video", "audio"}
    assert [] == [name for name, _ in attributes if name.startswith("on") or name in {"style", "src", "srcset"}]
    assert {"data:,"} == {value for name, value in attributes if name == "href" and not str(value).startswith("#")}
    assert [] == page.open


def test_the_policy_allows_the_one_style_sheet_and_nothing_else() -> None:
    """`default-src 'none'`, and the hash of what stands in the style element."""
    text = render(ALL["improved"])
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)

    assert style is not None
    wanted = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    policy = next(
        one["content"] for one in Page(text).named("meta") if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert (
        f"default-src 'none'; style-src 'sha256-{wanted}'; img-src data:; base-uri 'none'; form-action 'none'" == policy
    )
    assert not re.search(r"url\(|@import|https?:", style.group(1))


def test_what_strangers_wrote_is_text() -> None:
    """Instructions, demos, names, answers, reasons, errors and events: shown, never obeyed."""
    text = render(ALL["evil"])
    page = Page(text)

    assert "<script" not in text
    assert "<img" not in text
    assert "onerror=alert(2)&gt;" in text
    assert "⟨U+202E⟩⟨U+001B⟩[2J" in page.words
    assert "{{7*7}}" in page.words
    assert text.count("</style>") == 1
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_every_table_and_picture_says_what_it_is(page: Page) -> None:
    """Captions, labels, one h1, headings that do not skip a step, ids that are unique and lead somewhere."""
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    ids = [found["id"] for _, found in page.tags if "id" in found]
    links = [str(found["href"])[1:] for found in page.named("a")]

    assert 1 == levels.count(1)
    assert all(after - before <= 1 for before, after in zip([1, *levels], levels, strict=False))
    assert len(page.named("table")) == len(page.named("caption"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in page.named("svg"))
    assert all(one.get("tabindex") == "0" for one in page.named("div") if one.get("class") == "scroll")
    assert len(set(ids)) == len(ids)
    assert set(links) <= set(ids)
    assert [{"lang": "en"}] == page.named("html")


def test_the_first_lines_answer_what_a_manager_asks() -> None:
    """Better? By how much? How sure? What did it cost?"""
    words = Page(render(ALL["improved"])).words.replace("\u00a0", " ")
    top = words[: words.index("What to do next")]

    for answer in ("Yes, it is better.", "about 29 more", "between +21 and +36", "p < 0.0001", "$1.21"):
        assert answer in top


def test_single_test_cases_are_never_shown(page: Page) -> None:
    """Only counts leave the sealed split, and the page says why."""
    assert "sealed-" not in page.words


def test_the_sections_a_state_has() -> None:
    """What is not there yet is not hinted at."""
    improved = Page(render(ALL["improved"])).words
    running = Page(render(ALL["running"])).words
    queued = Page(render(ALL["queued"])).words
    nothing = Page(render(ALL["nothing better"])).words

    assert "58 became right that were wrong and 0 became wrong that were right" in improved
    assert "Why no test case is shown." in improved
    assert "What each change is worth" in improved
    assert "The ledger answered 1,187 more that had been asked before (33.3% of all)" in improved
    assert "2 calls were lost when the process died" in improved
    assert "The best candidate so far, not proven." in running
    assert "The proof" not in running
    assert "The search" not in queued
    assert "Where it came from" not in queued
    assert "no candidate took the place of the agent you have" in nothing
    assert "The agent you have answered 200 sealed test cases" in nothing
    assert "guardrail holds" in improved
    assert "guardrail is not shown to hold" not in nothing
    assert "This was use 3 of this split" in Page(render(ALL["reused"])).words


def test_a_long_list_of_examples_is_cut_and_says_so() -> None:
    """The counts are of all; the listed ones are those with the largest change."""
    page = Page(render(ALL["improved"]))
    cases = [one for one in page.named("article") if one["class"] == "case better"]

    assert MOST_EXAMPLES == len(cases)
    assert f"28 examples, the {MOST_EXAMPLES} with the largest change" in page.words


def test_words_that_changed_are_marked_for_eyes_and_for_screen_readers() -> None:
    """`ins` and `del` are read out and survive without colour."""
    page = Page(render(ALL["improved"]))

    assert page.named("ins")
    assert page.named("del")


def test_how_components_are_asked_is_shown_before_and_after() -> None:
    """In words, beside the texts; nothing where nothing of it changed."""
    chosen = Candidate(
        components={
            CLASSIFY: replace(
                BASELINE.components[CLASSIFY],
                settings=ComponentSettings(model="<large>", parameters={"temperature": 0.25}, tools=()),
            )
        }
    )
    report = sample()

    page = Page(render(replace(report, changes=component_changes(BASELINE, chosen, frozenset()))))

    assert "model: as the agent says → <large>" in " ".join(page.words.split())
    assert "parameters: as the agent says → temperature 0.25" in " ".join(page.words.split())
    assert "How it is asked" not in Page(render(report)).words
    lines = plain(summary(replace(report, changes=component_changes(BASELINE, chosen, frozenset()))))
    assert "model: as the agent says → <large>" in " ".join(lines.split())


def test_goals_that_are_a_mean_are_shown_in_their_own_unit() -> None:
    """No percentages where a score is no share of cases."""
    mean = tuple(
        replace(
            one,
            results=tuple(
                replace(
                    found,
                    scores={**found.scores, "exact_match": Score(value=0.3 + 0.4 * found.scores["exact_match"].value)},
                )
                for found in one.results
            ),
        )
        for one in STORY.trials
    )
    page = Page(render(sample(trials=mean)))

    assert "exact_match on val" in {one.get("aria-label", "")[:18] for one in page.named("svg")}
    assert "in 100" not in page.words[: page.words.index("What to do next")]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    """The file is there whole, folders are made, and no partial file stays."""
    path = write(ALL["improved"], tmp_path / "deep" / "report.html")

    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path] == list(path.parent.iterdir())
    assert render(ALL["improved"]) == write(ALL["improved"], path).read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where a folder is wanted."""
    (tmp_path / "file").write_text("")

    with pytest.raises(InvalidRequestError, match=r"wanted: a place for the report; found: .*file/report.html"):
        write(ALL["improved"], tmp_path / "file" / "report.html")


def test_a_thousand_candidates_stay_one_small_page() -> None:
    """Charts are thinned and tables cut; the page opens at once."""
    data = Dataset(name="many", version=DATA.version, splits={**DATA.splits, Split.VAL: DATA[Split.VAL][:4]}, seed=0)
    trials = [trial(BASELINE, results(data[Split.VAL], 0.2), algorithm="baseline", iteration=0, paid_calls=4)]
    for index in range(2000):
        one = candidate(f"text {index}", parents=[trials[-1].candidate])
        measured = results(data[Split.VAL], 0.3 + index / 4000)
        trials.append(trial(one, measured, algorithm="gepa", iteration=index, paid_calls=4 + index))

    text = render(sample(trials=tuple(trials), dataset=data, result=None))

    assert 1_500_000 > len(text)
    assert text.count("<circle") > 100


def test_components_without_instructions_say_so() -> None:
    """An empty text is a fact too."""
    empty = Candidate(components={CLASSIFY: ComponentValue(instructions="")})
    val = DATA[Split.VAL]
    only = trial(empty, results(val, 0.5), algorithm="baseline", iteration=0, paid_calls=1)

    assert "(empty)" in Page(render(sample(trials=(only,), result=None))).words
    assert material().agent.name in Page(render(ALL["improved"])).words
