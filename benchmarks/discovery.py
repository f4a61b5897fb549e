"""How well does a calibration find hidden limits? Draws worlds, calibrates each in virtual time, prints the table.

    python benchmarks/discovery.py --suite standard --count 200 --seed 7 --jobs 2 [--failures] [--json FILE]
    python benchmarks/discovery.py --suite standard --seed 7 --world 12     # replay one world, step by step
    python benchmarks/discovery.py --suite standard --count 40 --against aimd

Equal arguments give equal tables, whatever the number of processes. Tune on some seeds, report on others.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

# One thread a process: the processes share the cores already. Must be set before numpy is loaded.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import measures  # noqa: E402 - see above
import worlds  # noqa: E402
from baselines import BASELINES  # noqa: E402
from judging import Job, Outcome, judge  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redline.traffic import Progress

_ALL_COUNTS = {suite: 1000 if suite == "standard" else 300 for suite in worlds.SUITES}


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; 0 when every target was reached, 1 otherwise."""
    options = _parse(argv)
    if options.world is not None:
        return _replay(_job(options, options.suite, options.world))
    began_s = time.monotonic()
    outcomes = _run(_jobs(options), options.jobs)
    if options.failures:
        _print_failures(outcomes)
    table = measures.rows(outcomes)
    print(measures.render(table))
    cpu_s = sum(outcome.cpu_s for outcome in outcomes)
    crashed = sum(bool(outcome.trouble) for outcome in outcomes)
    print(f"{len(outcomes)} worlds, {crashed} crashed, {time.monotonic() - began_s:.0f} s ({cpu_s:.0f} s of CPU)")
    if options.json:
        rows = json.dumps([row.as_json() for row in table], indent=1)
        options.json.write_text(rows + "\n", encoding="utf-8")
    return 0 if all(row.passed is not False for row in table) else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", required=True, choices=[*worlds.SUITES, "all"])
    parser.add_argument("--count", type=_at_least_one, help="worlds a suite (default: 1000 standard, 300 others)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=_at_least_one, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--against", choices=[*BASELINES, "all"], help="run this baseline on the same worlds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--failures", action="store_true", help="print the worlds that came out wrong")
    parser.add_argument("--world", type=int, metavar="K", help="replay world K of the suite and tell everything")
    parser.add_argument("--no-verify", action="store_true", help="skip the verification runs")
    parser.add_argument("--no-score", action="store_true", help="skip the hours of traffic behind the settings")
    options = parser.parse_args(argv)
    if options.world is not None and options.suite == "all":
        parser.error("--world takes a single --suite, not all")
    return options


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _job(options: argparse.Namespace, suite: str, index: int) -> Job:
    against = tuple(BASELINES) if options.against == "all" else (options.against,) if options.against else ()
    return Job(suite, index, options.seed, not options.no_verify, against, not options.no_score)


def _jobs(options: argparse.Namespace) -> list[Job]:
    suites = [s for s in worlds.SUITES if s not in worlds.EXTRA] if options.suite == "all" else [options.suite]
    return [_job(options, s, index) for s in suites for index in range(options.count or _ALL_COUNTS[s])]


def _run(jobs: list[Job], processes: int) -> list[Outcome]:
    """Judge all, in as many processes; the outcomes come back in the order of the jobs."""
    if processes == 1:
        return [_told(judge(job), number, len(jobs)) for number, job in enumerate(jobs, 1)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        done = [_told(outcome, n, len(jobs)) for n, outcome in enumerate(pool.imap_unordered(judge, jobs), 1)]
    place = {(job.suite, job.index): number for number, job in enumerate(jobs)}
    return sorted(done, key=lambda outcome: place[outcome.suite, outcome.index])


def _told(outcome: Outcome, number: int, total: int) -> Outcome:
    if sys.stderr.isatty():
        print(f"\r{number}/{total} {outcome.suite:<12}", end="" if number < total else "\n", file=sys.stderr)
    return outcome


def _wrong(outcome: Outcome) -> list[str]:
    """Return the yes-or-no marks that came out as no, of those that have a target (of all where none has)."""
    aimed_at = {m.mark for m in measures.TARGETS if m.suite == outcome.suite and m.statistic == measures.SHARE}
    return [
        mark
        for mark, value in outcome.marks.items()
        if value == 0.0 and (not aimed_at or mark.partition(":")[0] in aimed_at or mark in aimed_at)
    ]


def _print_failures(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        wrong = _wrong(outcome)
        if wrong or outcome.trouble:
            print(f"{outcome.suite} {outcome.index}: {', '.join(wrong) or 'crashed'}")
            print(f"    truth   {outcome.truth}\n    answer  {outcome.answer}")
            if outcome.trouble:
                print("    " + outcome.trouble.strip().splitlines()[-1])
    print()


def _replay(job: Job) -> int:
    """Calibrate one world, telling each step."""

    def tell(progress: Progress) -> None:
        print(
            f"{progress.elapsed_s:9.2f} s  {progress.phase:<20} sent {progress.sent:<7} admitted {progress.admitted:<7}"
            f" throttled {progress.throttled:<6} {progress.estimate} {' '.join(progress.notes)}"
        )

    outcome = judge(replace(job, give_up_s=0), tell)
    print(f"truth   {outcome.truth}\nanswer  {outcome.answer}")
    for mark, value in outcome.marks.items():
        print(f"    {mark:<56} {value:g}")
    print(f"{outcome.cpu_s:.2f} s of CPU")
    if outcome.trouble:
        print(outcome.trouble)
    return 1 if outcome.trouble or _wrong(outcome) else 0


if __name__ == "__main__":
    sys.exit(main())
