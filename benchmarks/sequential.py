"""How often live experiments are decided wrongly, and how soon rightly: simulated, looked at after every unit.

Each criterion has a bound (its target plus three Monte-Carlo errors of a share, for the replications at hand) and a
negative control on the same streams that has to miss the bound: a simulation that cannot see a broken test proves
nothing. Everything goes through the public `EProcess`, `SampleRatio`, `DropDetector` and `e_lond_threshold`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.finding import Finding, Table
from dspy_optimization.events import Json
from dspy_optimization.statistics.sequential import (
    BetDesign,
    DropDetector,
    EProcess,
    Plan,
    SampleRatio,
    Units,
    e_lond_threshold,
    non_inferiority_threshold,
)

TITLE = "sequential tests of live experiments: false decisions, power, and controls that have to fail"

REPLICATIONS = 1000
ALPHA = 0.05
EFFECT = 0.05
NEVER = 10**9
"""Units until a decision that did not come."""

Row = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number that was found, and the bound it has to keep, or as a control has to miss."""

    criterion: str
    setting: str
    found: float
    bound: float
    at_most: bool = True
    control: bool = False
    reference: str = ""
    """What the research notes found."""

    @property
    def is_as_wanted(self) -> bool:
        """Whether the bound is kept, or missed by a control."""
        kept = self.found <= self.bound if self.at_most else self.found >= self.bound
        return kept is not self.control


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Two arms and a split."""

    name: str
    share: float
    baseline: float
    gain: float = 0.0
    concentration: float | None = None
    """Of Beta outcomes; None for successes and failures."""

    def units(self, rng: np.random.Generator, n: int) -> Units:
        """Draw n units."""
        treated = rng.random(n) < self.share
        mean = np.where(treated, self.baseline + self.gain, self.baseline)
        if self.concentration is None:
            outcome = (rng.random(n) < mean).astype(float)
        else:
            outcome = rng.beta(self.concentration * mean, self.concentration * (1.0 - mean))
        return Units.of(treated, outcome, self.share)

    def start(self, *, interval: bool = False) -> EProcess:
        """Return a process whose history knows the baseline."""
        design = BetDesign(effect=EFFECT, historical_mean=self.baseline, interval_alpha=ALPHA if interval else None)
        return EProcess.start(design)


EQUAL = (
    Setting(name="10/90, .50", share=0.1, baseline=0.5),
    Setting(name="10/90, .80", share=0.1, baseline=0.8),
    Setting(name="10/90, .95", share=0.1, baseline=0.95),
    Setting(name="50/50, .90", share=0.5, baseline=0.9),
    Setting(name="10/90, Beta .70", share=0.1, baseline=0.7, concentration=4.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """A gain, and how soon it has to be found."""

    setting: Setting
    decided_by_twice: float
    """Share that has to be decided by twice the units of a fixed horizon."""
    stop: float
    """Mean stop, in units of a fixed horizon, that must not be exceeded."""
    reference: tuple[str, str]


BETTER = (
    Power(
        setting=Setting(name="10/90, .80 to .85", share=0.1, baseline=0.8, gain=0.05),
        decided_by_twice=0.78,
        stop=1.45,
        reference=(".86", "1.16"),
    ),
    Power(
        setting=Setting(name="50/50, .80 to .85", share=0.5, baseline=0.8, gain=0.05),
        decided_by_twice=0.82,
        stop=1.40,
        reference=(".90", "1.11"),
    ),
    Power(
        setting=Setting(name="10/90, .90 to .95", share=0.1, baseline=0.9, gain=0.05),
        decided_by_twice=0.65,
        stop=1.85,
        reference=(".74", "1.52"),
    ),
)


def measure(replications: int = REPLICATIONS) -> Finding:
    """Return every criterion with its controls."""
    checks = [
        check
        for number, criterion in enumerate(CRITERIA)
        for check in criterion(replications, np.random.default_rng(7000 + number))
    ]
    rows = tuple(
        (
            check.criterion,
            check.setting,
            check.reference or "-",
            f"{'at most' if check.at_most else 'at least'} {check.bound:.4g}",
            f"{check.found:.4g}" if check.found < NEVER else "never",
            "has to miss" if check.control else "has to keep",
            "as wanted" if check.is_as_wanted else "FAILS",
        )
        for check in checks
    )
    columns = ("criterion", "setting", "reference", "bound", "found", "wanted", "outcome")
    notes = (
        (
            f"{replications:,} replications of every setting; alpha {ALPHA} two-sided, bets aimed at a difference of "
            f"{EFFECT} unless the setting says otherwise."
        ),
        "Bounds of shares are their target plus three Monte-Carlo errors for this number of replications.",
    )
    data: dict[str, Json] = {
        f"{check.criterion}: {check.setting}": {"found": check.found, "bound": check.bound} for check in checks
    }
    return Finding(
        tables=(Table(title="Sequential criteria and controls", columns=columns, rows=rows),), notes=notes, data=data
    )


def share_bound(target: float, replications: int) -> float:
    """Return the target plus three Monte-Carlo errors."""
    return target + 3.0 * math.sqrt(target * (1.0 - target) / replications)


def slack(spread: float, replications: int) -> float:
    """Return what three Monte-Carlo errors are above those of 1,000 replications, which the notes' bounds hold.

    Args:
        spread: standard deviation of what is averaged.
        replications: 1,000 or fewer.
    """
    return 3.0 * spread * (1.0 / math.sqrt(replications) - 1.0 / math.sqrt(1000))


def equal_arms(replications: int, rng: np.random.Generator, n: int = 5000) -> list[Check]:
    """S1 and S2: nothing differs, and one looks after every unit."""
    checks = []
    for setting in EQUAL:
        rejected = deployed = naive = 0
        for _ in range(replications):
            units = setting.units(rng, n)
            process = setting.start().extend(units)
            rejected += process.is_superior(ALPHA) or process.is_harmful(ALPHA)
            deployed += process.is_superior(ALPHA)
            naive += naive_z_rejects(units)
        any_bound, deploy_bound = share_bound(ALPHA, replications), share_bound(ALPHA / 2, replications)
        checks += [
            Check(
                criterion="S1 any rejection",
                setting=setting.name,
                found=rejected / replications,
                bound=any_bound,
                reference=".026-.052",
            ),
            Check(
                criterion="S1 false deploy",
                setting=setting.name,
                found=deployed / replications,
                bound=deploy_bound,
                reference=".015-.027",
            ),
            Check(
                criterion="S2 peeked z",
                setting=setting.name,
                found=naive / replications,
                bound=0.20,
                at_most=False,
                reference=".40-.47",
            ),
            Check(
                criterion="S2 peeked z",
                setting=setting.name,
                found=naive / replications,
                bound=any_bound,
                control=True,
                reference=".40-.47",
            ),
        ]
    return checks


def better_arm(replications: int, rng: np.random.Generator, settings: Sequence[Power] = BETTER) -> list[Check]:
    """S3: a gain is found, and soon."""
    checks = []
    for power in settings:
        setting = power.setting
        plan = Plan(baseline_mean=setting.baseline, treated_share=setting.share)
        fixed = plan.fixed_horizon_units(setting.gain)
        equal = Setting(name=setting.name, share=setting.share, baseline=setting.baseline)
        stops, without = (
            np.array([_first_win(each, rng, 4 * fixed, fixed // 6) for _ in range(replications)])
            for each in (setting, equal)
        )
        for found, control in ((stops, False), (without, True)):
            name = f"{setting.name}, no gain" if control else setting.name
            by_twice, stop = (None, None) if control else power.reference
            checks += [
                Check(
                    criterion="S3 found by 4 n",
                    setting=name,
                    found=float(np.mean(found < NEVER)),
                    bound=0.95 - slack(0.2, replications),
                    at_most=False,
                    control=control,
                    reference="" if control else ".975-1",
                ),
                Check(
                    criterion="S3 found by 2 n",
                    setting=name,
                    found=float(np.mean(found <= 2 * fixed)),
                    bound=power.decided_by_twice - slack(0.45, replications),
                    at_most=False,
                    control=control,
                    reference=by_twice or "",
                ),
                Check(
                    criterion="S3 mean stop / n",
                    setting=name,
                    found=float(np.mean(np.minimum(found, 4 * fixed))) / fixed,
                    bound=power.stop + slack(0.9, replications),
                    control=control,
                    reference=stop or "",
                ),
            ]
    return checks


def harm(replications: int, rng: np.random.Generator) -> list[Check]:
    """S4: a bad arm is stopped after few of its units."""
    checks = []
    for gain, effect, reference in ((-0.3, 0.1, "23"), (-0.3, EFFECT, ""), (0.0, 0.1, "")):
        setting = Setting(name="", share=0.1, baseline=0.8, gain=gain)
        start = EProcess.start(BetDesign(effect=effect, historical_mean=0.8))
        treated = []
        for _ in range(replications):
            units = setting.units(rng, 2000)
            stop = first_unit(start, units, _is_harmful, 100)
            treated.append(NEVER if stop == NEVER else int(np.count_nonzero(units.treated[:stop])))
        checks.append(
            Check(
                criterion="S4 treated units to rollback",
                setting=f"10/90, .8 to {0.8 + gain:.1f}, bets at {effect}",
                found=float(np.median(treated)),
                bound=40,
                control=gain == 0.0,
                reference=reference,
            )
        )
    return checks


def coverage(replications: int, rng: np.random.Generator, n: int = 5000) -> list[Check]:
    """S5: the interval never excludes the truth, at any look."""
    setting = Setting(name="10/90, .80 to .85", share=0.1, baseline=0.8, gain=0.05)
    missed = naive = 0
    for _ in range(replications):
        units = setting.units(rng, n)
        interval = setting.start(interval=True).extend(units).interval
        missed += interval is None or not interval.lower < setting.gain < interval.upper
        naive += naive_z_rejects(units, difference=setting.gain)
    bound = share_bound(ALPHA, replications)
    return [
        Check(
            criterion="S5 excludes the truth",
            setting=setting.name,
            found=missed / replications,
            bound=bound,
            reference=".024",
        ),
        Check(
            criterion="S5 fixed-n interval, peeked",
            setting=setting.name,
            found=naive / replications,
            bound=bound,
            control=True,
        ),
    ]


def ramp(replications: int, rng: np.random.Generator, n_stage: int = 3000) -> list[Check]:
    """S6: the split rises 1, 10, 50 % while the base rate falls; nothing differs."""
    propensity = np.repeat([0.01, 0.1, 0.5], n_stage)
    base = np.linspace(0.9, 0.6, propensity.size)
    right = pooled = wrong = 0
    for _ in range(replications):
        treated = rng.random(propensity.size) < propensity
        outcome = (rng.random(propensity.size) < base).astype(float)
        start = EProcess.start(BetDesign(effect=EFFECT, historical_mean=0.9))
        process = start.extend(Units.of(treated, outcome, propensity))
        right += process.is_superior(ALPHA) or process.is_harmful(ALPHA)
        mistaken = start.extend(Units.of(treated, outcome, 0.5))
        wrong += mistaken.is_superior(ALPHA) or mistaken.is_harmful(ALPHA)
        pooled += bool(abs(_z_path(treated, outcome)[-1]) > special.ndtri(1.0 - ALPHA / 2.0))
    bound = share_bound(ALPHA, replications)
    name = "1, 10, 50 %, base .9 to .6"
    return [
        Check(criterion="S6 any rejection", setting=name, found=right / replications, bound=bound, reference=".021"),
        Check(
            criterion="S6 pooled z, one look",
            setting=name,
            found=pooled / replications,
            bound=bound,
            control=True,
            reference=".96",
        ),
        Check(
            criterion="S6 final propensity for all",
            setting=name,
            found=wrong / replications,
            bound=bound,
            control=True,
            reference=".56",
        ),
    ]


def sticky_users(replications: int, rng: np.random.Generator, n_users: int = 1000) -> list[Check]:
    """S7: users differ and come again; the unit is the user."""
    by_user = by_request = 0
    for _ in range(replications):
        treated = rng.random(n_users) < 0.5
        rate = rng.beta(0.7 * 1.5, 0.3 * 1.5, n_users)
        requests = rng.geometric(0.1, n_users)
        successes = rng.binomial(requests, rate)
        start = EProcess.start(BetDesign(effect=EFFECT, historical_mean=0.7))
        users = start.extend(Units.of(treated, successes / requests, 0.5))
        by_user += users.is_superior(ALPHA) or users.is_harmful(ALPHA)
        order = rng.permutation(int(requests.sum()))
        user = np.repeat(np.arange(n_users), requests)[order]
        outcome = (rng.random(user.size) < rate[user]).astype(float)
        each = start.extend(Units.of(treated[user], outcome, 0.5))
        by_request += each.is_superior(ALPHA) or each.is_harmful(ALPHA)
    bound = share_bound(ALPHA, replications)
    name = f"{n_users} users, 10 requests each, 50/50"
    return [
        Check(criterion="S7 by user", setting=name, found=by_user / replications, bound=bound, reference=".006"),
        Check(
            criterion="S7 by request",
            setting=name,
            found=by_request / replications,
            bound=bound,
            control=True,
            reference=".20",
        ),
    ]


def sample_ratio(replications: int, rng: np.random.Generator, n: int = 20_000) -> list[Check]:
    """S8: a wrong split is seen, a right one raises no alarm."""
    shares = (0.9, 0.1)
    alarms = peeked = found = 0
    for _ in range(replications):
        treated = rng.random(n) < 0.1
        alarms += SampleRatio.start(shares).extend(treated).is_mismatch
        peeked += _peeked_chi_square(treated, 0.1)
        found += SampleRatio.start(shares).extend(rng.random(n) < 0.085).is_mismatch
    bound = share_bound(0.001, replications)
    return [
        Check(criterion="S8 false alarm", setting="10 %", found=alarms / replications, bound=bound, reference="0"),
        Check(
            criterion="S8 chi-square < .001, peeked",
            setting="10 %",
            found=peeked / replications,
            bound=bound,
            control=True,
            reference=".03",
        ),
        Check(
            criterion="S8 detected",
            setting="10 to 8.5 %",
            found=found / replications,
            bound=0.95,
            at_most=False,
            reference="1",
        ),
        Check(
            criterion="S8 detected",
            setting="10 %",
            found=alarms / replications,
            bound=0.95,
            at_most=False,
            control=True,
        ),
    ]


def guardrail(replications: int, rng: np.random.Generator, n: int = 10_000) -> list[Check]:
    """S9: latency with a margin of 10 %; at the margin neither claim may be made."""
    mean = float(_latency(np.random.default_rng(1), 1_000_000).mean())
    start = EProcess.start(BetDesign.guardrail(margin=0.1, historical_mean=mean))
    at_margin, equal, worse = (
        [_guardrail_verdicts(start, ratio, rng, n) for _ in range(replications)] for ratio in (1.1, 1.0, 1.25)
    )
    bound = share_bound(ALPHA, replications)
    return [
        Check(
            criterion="S9 proven non-inferior",
            setting="ratio 1.10",
            found=_share(verdict[0] for verdict in at_margin),
            bound=bound,
            reference=".020",
        ),
        Check(
            criterion="S9 proven non-inferior",
            setting="ratio 1.00",
            found=_share(verdict[0] for verdict in equal),
            bound=bound,
            control=True,
        ),
        Check(
            criterion="S9 breached",
            setting="ratio 1.10",
            found=_share(verdict[1] for verdict in at_margin),
            bound=bound,
            reference=".028",
        ),
        Check(
            criterion="S9 breached",
            setting="ratio 1.25",
            found=_share(verdict[1] for verdict in worse),
            bound=bound,
            control=True,
            reference="1",
        ),
    ]


def many_experiments(replications: int, rng: np.random.Generator) -> list[Check]:
    """S11: 60 experiments of one tenant, a fifth of them better; e-LOND against the same level for all."""
    n_experiments, n_real, n_units = 60, 12, 350
    null = Setting(name="", share=0.5, baseline=0.6)
    real = Setting(name="", share=0.5, baseline=0.6, gain=0.2)
    start = EProcess.start(BetDesign(effect=0.2, historical_mean=0.6))
    false_shares = {"e-lond": 0.0, "alone": 0.0}
    for _ in range(replications):
        is_real = rng.permutation(n_experiments) < n_real
        wins: dict[str, list[int]] = {"e-lond": [], "alone": []}
        for place in range(n_experiments):
            process = start.extend((real if is_real[place] else null).units(rng, n_units))
            thresholds = {
                "e-lond": e_lond_threshold(experiment=place + 1, wins_before=len(wins["e-lond"]), alpha=ALPHA),
                "alone": non_inferiority_threshold(ALPHA),
            }
            for way, threshold in thresholds.items():
                if process.max_log_e_above >= math.log(threshold):
                    wins[way].append(place)
        for way, places in wins.items():
            false_shares[way] += sum(not is_real[place] for place in places) / max(1, len(places))
    bound = share_bound(ALPHA, replications)
    name = f"{n_experiments} experiments, {n_real} better"
    return [
        Check(
            criterion="S11 false share of wins, e-LOND",
            setting=name,
            found=false_shares["e-lond"] / replications,
            bound=bound,
            reference=".005",
        ),
        Check(
            criterion="S11 the same, each at alpha",
            setting=name,
            found=false_shares["alone"] / replications,
            bound=bound,
            control=True,
            reference=".13",
        ),
    ]


def quality_drop(replications: int, rng: np.random.Generator, n: int = 2000) -> list[Check]:
    """S12: no alarm while the mean is the reference; a soon one when it drops."""
    alpha, mean = 1e-4, 0.8
    start, misplaced = DropDetector.start(reference=mean, alpha=alpha), DropDetector.start(reference=0.83, alpha=alpha)
    alarms = wrong = 0
    delays: list[int] = []
    for _ in range(replications):
        outcome = (rng.random(n) < mean).astype(float)
        kept = start.extend(outcome)
        alarms += kept.alarm_at is not None
        wrong += misplaced.extend(outcome).alarm_at is not None
        if kept.alarm_at is None:
            dropped = kept.extend((rng.random(n) < 0.70).astype(float)).alarm_at
            delays.append(NEVER if dropped is None else dropped - n)
    bound = share_bound(n * alpha, replications)
    return [
        Check(
            criterion=f"S12 alarms in {n:,}",
            setting="mean .80 = reference",
            found=alarms / replications,
            bound=bound,
            reference=".085",
        ),
        Check(
            criterion=f"S12 alarms in {n:,}",
            setting="mean .80, reference .83",
            found=wrong / replications,
            bound=bound,
            control=True,
        ),
        Check(
            criterion="S12 median delay",
            setting=".80 to .70",
            found=float(np.median(delays)),
            bound=200,
            reference="141",
        ),
    ]


CRITERIA: tuple[Callable[[int, np.random.Generator], list[Check]], ...] = (
    equal_arms, better_arm, harm, coverage, ramp, sticky_users, sample_ratio, guardrail, many_experiments, quality_drop,
)  # fmt: skip


def first_unit(process: EProcess, units: Units, decided: Callable[[EProcess], bool], step: int) -> int:
    """Return the number of units after which a decision stands, from 1 on; `NEVER` when it does not."""
    for start in range(0, len(units), step):
        after = process.extend(units.between(start, start + step))
        if not decided(after):
            process = after
            continue
        known, open_ = start, min(start + step, len(units))
        while open_ - known > 1:
            middle = (known + open_) // 2
            after = process.extend(units.between(known, middle))
            if decided(after):
                open_ = middle
            else:
                process, known = after, middle
        return open_
    return NEVER


def naive_z_rejects(units: Units, difference: float = 0.0, least: int = 30) -> bool:
    """Return whether an unpooled z test at 5 % rejects at any look with `least` units in both arms."""
    z = _z_path(units.treated, units.outcome, difference)
    enough = np.minimum(np.cumsum(units.treated), np.cumsum(~units.treated)) >= least
    return bool(np.any(np.abs(z[enough]) > special.ndtri(1.0 - ALPHA / 2.0)))


def _z_path(treated: npt.NDArray[np.bool_], outcome: Row, difference: float = 0.0) -> Row:
    mean, variance = [], []
    for arm in (treated, ~treated):
        n = np.maximum(np.cumsum(arm), 1)
        first = np.cumsum(np.where(arm, outcome, 0.0)) / n
        mean.append(first)
        variance.append((np.cumsum(np.where(arm, outcome * outcome, 0.0)) / n - first * first) / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((mean[0] - mean[1] - difference) / np.sqrt(variance[0] + variance[1]))


def _peeked_chi_square(treated: npt.NDArray[np.bool_], share: float) -> bool:
    n = np.arange(1, treated.size + 1)
    z = (np.cumsum(treated) - n * share) / np.sqrt(n * share * (1.0 - share))
    return bool(np.any(special.chdtrc(1, z[99:] ** 2) < 0.001))


def _first_win(setting: Setting, rng: np.random.Generator, n: int, step: int) -> int:
    return first_unit(setting.start(), setting.units(rng, n), _is_superior, step)


def _is_superior(process: EProcess) -> bool:
    return process.is_superior(ALPHA)


def _is_harmful(process: EProcess) -> bool:
    return process.is_harmful(ALPHA)


def _latency(rng: np.random.Generator, n: int) -> Row:
    """Return latencies with a long tail, as a share of a time-out; at most 0.8, so that 1.25 times as slow fits."""
    return np.minimum(rng.lognormal(math.log(0.15), 0.6, n), 0.8)


def _guardrail_verdicts(start: EProcess, ratio: float, rng: np.random.Generator, n: int) -> tuple[bool, bool]:
    treated = rng.random(n) < 0.5
    process = start.extend(Units.of(treated, _latency(rng, n) * np.where(treated, ratio, 1.0), 0.5))
    return process.is_non_inferior(ALPHA), process.is_breached(ALPHA, guardrails=1)


def _share(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found)
