"""Real time agrees with virtual: calibrations over sockets against two servers written apart, and in the simulator.

The fast tests hold the judge's verdicts to made-up results. The acceptance test calibrates the same configurations
three times: at the hidden server, at the mock and in virtual time.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hidden.configurations import Configuration, draw, quick, rate_per_s
from hidden.judging import judge, optimum_per_s
from hidden.running import Ended, calibrate, serving

if TYPE_CHECKING:
    from pathlib import Path

LOG = {"family": "sliding_log", "limit": 60, "window_s": 6.0}
PLACES = {"family": "concurrency", "limit": 8}


def configuration(*limits: dict[str, Any], median_s: float = 0.1) -> Configuration:
    """Make a configuration with these limits and constant service times."""
    return Configuration("made-up", limits, median_s, 0.0, 0.0, 0.0, errors_before=False, seed=1)


def limit(metric: str, state: str = "measured", **values: object) -> dict[str, Any]:
    """Make one limit of a result."""
    blank = dict.fromkeys(("reason", "family", "limit", "window_s", "burst", "rate_per_min"))
    return {"metric": metric, "state": state, **blank, **values}


def right_result(**changes: object) -> dict[str, Any]:
    """Make the result that a calibration of `LOG` with `PLACES` ought to print."""
    return {
        "limits": [
            limit("requests", family="sliding_log", limit=60, window_s=6.0, rate_per_min=600.0),
            limit("concurrency", limit=8),
        ],
        "settings": {"requests_per_minute": 597.0, "max_concurrency": 8},
        "verification": {"offered": 200, "throttled": 0, "passed": True, "attempts": 1},
        **changes,
    }


def failed(result: dict[str, Any], *limits: dict[str, Any]) -> list[str]:
    """Name the checks that a result does not pass."""
    return [check.measure for check in judge(configuration(*(limits or (LOG, PLACES))), result) if not check.passed]


def test_a_right_result_passes_every_check() -> None:
    """Family, rate, places, verification and goodput are all asked, and all right."""
    checks = judge(configuration(LOG, PLACES), right_result())
    assert [check.measure for check in checks if check.passed] == [
        "family right",
        "rate within 2 %",
        "concurrency exact",
        "nothing invented",
        "verified, nothing throttled",
        "goodput of the optimum",
    ]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"limits": []}, ["family right", "rate within 2 %", "concurrency exact"]),
        (
            {"limits": [limit("requests", family="sliding_log", rate_per_min=613.0), limit("concurrency", limit=8)]},
            ["rate within 2 %"],
        ),
        (
            {"limits": [limit("requests", family="fixed_window", rate_per_min=600.0), limit("concurrency", limit=7)]},
            ["family right", "concurrency exact"],
        ),
        (
            {"limits": [limit("requests", "at_least", rate_per_min=600.0), limit("concurrency", "at_least", limit=8)]},
            ["family right", "rate within 2 %", "concurrency exact"],
        ),
        ({"verification": None}, ["verified, nothing throttled"]),
        (
            {"verification": {"offered": 200, "throttled": 1, "passed": True, "attempts": 1}},
            ["verified, nothing throttled"],
        ),
        ({"settings": None}, ["goodput of the optimum"]),
        ({"settings": {"requests_per_minute": 530.0, "max_concurrency": 8}}, ["goodput of the optimum"]),
        ({"settings": {"requests_per_minute": None, "max_concurrency": 0}}, ["goodput of the optimum"]),
    ],
)
def test_each_fault_is_found_by_its_check(changes: dict[str, Any], wrong: list[str]) -> None:
    """One thing wrong, that check fails and no other."""
    assert failed(right_result(**changes)) == wrong


def test_an_invented_second_rate_limit_is_a_fault() -> None:
    """More measured rates than there are."""
    spare = limit("requests", family="fixed_window", limit=90, window_s=9.0, rate_per_min=600.0)
    result = right_result()
    assert failed(result | {"limits": [*result["limits"], spare]}) == ["nothing invented"]


def test_invented_places_are_a_fault() -> None:
    """A concurrency limit measured where there is none."""
    assert failed(right_result(), LOG) == ["nothing invented"]


def test_a_rate_measured_out_of_reach_must_be_a_true_one() -> None:
    """Where only the places count, a wrong rate is invented, and the right one is no fault."""
    assert "nothing invented" in failed(right_result(), PLACES)
    assert "nothing invented" not in failed(right_result(), LOG, {"family": "concurrency", "limit": 1})


def test_what_no_client_can_reach_does_not_count() -> None:
    """With two places of a second each, sixty calls in six seconds are out of reach; only the places count."""
    places = {"family": "concurrency", "limit": 2}
    checks = judge(configuration(LOG, places, median_s=1.0), right_result())
    assert "family right" not in [check.measure for check in checks]
    assert "concurrency exact" in [check.measure for check in checks]


def test_places_that_a_burst_hardly_meets_do_not_count() -> None:
    """Forty places behind a burst of sixty: the rate limit may refuse first."""
    checks = judge(configuration(LOG, {"family": "concurrency", "limit": 40}), right_result())
    assert "concurrency exact" not in [check.measure for check in checks]


@pytest.mark.parametrize(
    ("table", "optimum"),
    [
        (LOG, 60 / 6.005),
        ({"family": "sliding_counter", "limit": 60, "window_s": 6.0}, 59 / 6.005),
        ({"family": "token_bucket", "rate_per_s": 10.0, "burst": 5}, 10.0),
        ({"family": "token_bucket", "rate_per_s": 10.0, "burst": 1}, 1 / 0.105),
        (PLACES, 80.0),
    ],
)
def test_the_optimum_is_the_formulas(table: dict[str, Any], optimum: float) -> None:
    """By hand, with a spread of 5 ms and service times of 0.1 s."""
    assert optimum_per_s(configuration(table)) == pytest.approx(optimum, rel=1e-5)


SEED = 20261123
HOW_MANY = 20
FASTER = 2.0  # windows of 4 to 15 s become 2 to 7.5 s
# The promise is 57 of 60. On two busy cores 49 were reached (2026-11-24); most of the rest were sliding counters with
# odd windows. This floor catches relapses, on busy machines too; benchmarks/live.py measures how far the promise is.
TRUE_AT_LEAST = 0.65
AT_A_TIME = 4  # each calibration mostly waits
WITHIN_S = 600.0


def short_configurations() -> list[Configuration]:
    """Choose configurations with one rate limit, on shorter windows, where the places leave it in easy reach."""
    shortened = (quick(each, FASTER) for each in draw(SEED, 6 * HOW_MANY))
    return [each for each in shortened if len(each.rates) == 1 and is_in_easy_reach(each)][:HOW_MANY]


def is_in_easy_reach(each: Configuration) -> bool:
    """Tell whether the places let through well more than the rate limit does."""
    return each.places is None or rate_per_s(each.rates[0]) < 0.7 * each.places / each.mean_latency_s


def profile(configuration: Configuration) -> str:
    """Write the same server as a profile of the mock and the simulator, with bodies that name no quota."""
    lines = ["[refusal]", 'shape = "bare"', "[latency]", f"first_token_s = {configuration.median_s}"]
    lines += [f"sigma = {configuration.sigma}", f"per_token_s = {configuration.per_token_s}"]
    lines += ["[faults]", f"overloaded_503 = {configuration.error_share}"]
    for table in configuration.limits:
        metric = "concurrency" if table["family"] == "concurrency" else "requests"
        lines += ["[[limits]]", f'metric = "{metric}"', *(_pair(name, value) for name, value in _spelt(table).items())]
    return "\n".join(lines) + "\n"


def _spelt(table: dict[str, Any]) -> dict[str, Any]:
    names = {"counts_refused": "count_refused"}
    spelt = {names.get(name, name): value for name, value in table.items() if name != "rate_per_s"}
    # A profile states a bucket's rate as a limit per window.
    return spelt | ({"limit": 60.0 * table["rate_per_s"], "window_s": 60.0} if "rate_per_s" in table else {})


def _pair(name: str, value: object) -> str:
    return f"{name} = {json.dumps(value)}"


# Family and rate are asked for here, and no proof of the settings: a verification that is cut short saves minutes.
BRIEFLY = ("--verify-for", "2s")


def three_ways(each: Configuration, folder: Path) -> dict[str, Ended]:
    """Calibrate one configuration at the hidden server, at the mock and in virtual time."""
    file = folder / f"{each.name}.toml"
    file.write_text(profile(each), encoding="utf-8")
    with serving(each.server_config()) as url:
        ended = {"hidden": calibrate(url, folder, *BRIEFLY, timeout_s=WITHIN_S)}
    for target in ("mock", "sim"):
        ended[target] = calibrate(target, folder, "--profile", str(file), *BRIEFLY, timeout_s=WITHIN_S)
    return ended


def found(ended: Ended) -> tuple[str | None, float]:
    """Return family and rate (per second) of the measured request limit, or how the run ended."""
    if ended.result is None:
        return f"exit code {ended.exit_code}: {ended.last_line}", 0.0
    measured = [each for each in ended.result["limits"] if (each["metric"], each["state"]) == ("requests", "measured")]
    if len(measured) != 1:
        return f"{len(measured)} measured request limits", 0.0
    return measured[0]["family"], measured[0]["rate_per_min"] / 60.0


def disagreements(each: Configuration, ended: dict[str, Ended]) -> list[str]:
    """Say of each way what it answered where that is not the true family with the rate within 2 %."""
    truth = each.rates[0]
    expected = (truth["family"], pytest.approx(rate_per_s(truth), rel=0.02))
    answers = {name: found(run) for name, run in ended.items()}
    return [f"{each.name} {name}: {answer}, truth {truth}" for name, answer in answers.items() if answer != expected]


@pytest.mark.acceptance
def test_real_time_agrees_with_virtual(tmp_path: Path) -> None:
    """Most answers at the hidden server, at the mock and in virtual time are the truth."""
    chosen = short_configurations()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        outcomes = list(pool.map(lambda each: three_ways(each, tmp_path), chosen))
    answers = sum(len(ended) for ended in outcomes)
    wrong = [line for each, ended in zip(chosen, outcomes, strict=True) for line in disagreements(each, ended)]
    assert answers == 3 * HOW_MANY
    assert len(wrong) <= (1.0 - TRUE_AT_LEAST) * answers, "\n".join(wrong)
