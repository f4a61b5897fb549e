"""The report: everything that a run directory gets beside its ledger, as a pure function of ledger and `run.json`.

`write` is the one place of the analysis that writes what people read: `result.json`, `settings.toml`, the figures
and `report.html`, one file without scripts to load, fonts to fetch or anything else to reach.
"""

from __future__ import annotations

import os
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from analysis import snippets, wording
from analysis.exhibits import exhibits
from analysis.load import load_run
from analysis.result import to_json
from analysis.verdict import examine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.exhibits import Exhibit
    from analysis.result import Gate, Limit, Settings
    from analysis.verdict import Conclusion

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = {
    "number": wording.number,
    "percent": wording.percent,
    "span": wording.span,
    "interval": wording.interval,
    "amount": wording.amount,
    "explanation": wording.explanation,
    "witnessed": wording.witnessed,
    "setting": wording.setting,
    "knobs": wording.knobs,
    "sentence": wording.sentence,
    "in_words": wording.join,
}


def write(run_dir: Path) -> Path:
    """Write the verdict of a run into its directory; return the path of `report.html`.

    Works on finished, running and killed runs alike. Raises `analysis.load.LogError`, or OSError where the
    directory cannot be written.
    """
    run, table = load_run(run_dir)
    conclusion = examine(run, table)
    shown = exhibits(conclusion, table)
    _replace(run_dir / "result.json", to_json(conclusion.result).decode())
    settings = conclusion.result.settings
    if settings is not None:
        _replace(run_dir / "settings.toml", snippets.settings_toml(settings, source(run)))
    else:
        (run_dir / "settings.toml").unlink(missing_ok=True)  # one of an earlier reading would be taken for the verdict
    (run_dir / "figures").mkdir(exist_ok=True)
    for exhibit in shown:
        _replace(run_dir / "figures" / f"{exhibit.name}.svg", exhibit.svg())
    page = run_dir / "report.html"
    _replace(page, render(run, conclusion, shown))
    return page


def source(run: Mapping[str, Any]) -> dict[str, str]:
    """Return where settings come from: run, target, model, date."""
    names = {"run": "run", "target": "target", "model": "model", "date": "started"}
    return {ours: str(run.get(theirs) or "") for ours, theirs in names.items()}


def render(run: Mapping[str, Any], conclusion: Conclusion, shown: list[Exhibit]) -> str:
    """Return the page. ``shown``: the figures, in order."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    result = conclusion.result
    return environment.get_template("report.html.j2").render(
        run=run,
        result=result,
        headline=wording.headline(result),
        caveat=wording.caveat(run.get("ended")),
        sureness=wording.sureness(result),
        standing=_standing(conclusion),
        states=wording.STATES,
        metrics=wording.METRICS,
        families=wording.FAMILIES,
        main=_main_limit(result.limits),
        when=_when(run.get("started")),
        pastes=_pastes(result.settings, run),
        story=conclusion.story,
        gates=[_gate(gate) for gate in result.validity],
        ranked=_ranked(result.limits),
        exhibits=shown,
        made_by=_version(),
    )


def _standing(conclusion: Conclusion) -> str:
    """Return good, bad or open: whether the settings held."""
    seen = conclusion.result.verification
    return "open" if seen is None else "good" if seen.passed else "bad"


def _main_limit(limits: tuple[Limit, ...]) -> Limit | None:
    """Return the limit that the first screen is about: the best known one, a rate before concurrency."""
    order = ["measured", "declared", "at_most", "random", "unresolved", "at_least", "not_tested"]
    ranked = sorted(limits, key=lambda m: (order.index(m.state), m.metric == "concurrency"))
    return ranked[0] if ranked else None


def _pastes(settings: Settings | None, run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (id, title, text) of what can be pasted."""
    if settings is None:
        return []
    made = [
        ("toml", "settings.toml", snippets.settings_toml(settings, source(run))),
        ("aiolimiter", "aiolimiter", snippets.aiolimiter(settings)),
        ("tenacity", "tenacity", snippets.tenacity(settings)),
        ("env", ".env", snippets.environment(settings)),
    ]
    return [paste for paste in made if paste[2]]


def _gate(gate: Gate) -> dict[str, Any]:
    title, unit = wording.GATES.get(gate.gate, (gate.gate.replace("_", " "), "count"))
    text = {"share": wording.percent, "seconds": wording.seconds}.get(unit, wording.number)
    sign = "at least" if unit == "share" and gate.bound > 0.5 else "at most"  # noqa: PLR2004 - a share to reach
    return {"title": title, "value": text(gate.value), "bound": f"{sign} {text(gate.bound)}", "passed": gate.passed}


def _ranked(limits: tuple[Limit, ...]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return (metric, [(family, probability)]) for limits whose family was in question, likeliest first."""
    return [
        (limit.metric, [(limit.family, limit.family_probability), *limit.also_possible])
        for limit in limits
        if limit.family and limit.family_probability is not None
    ]


def _when(started: object) -> str:
    try:
        moment = datetime.fromisoformat(str(started))
    except ValueError:
        return ""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def _version() -> str:
    try:
        return f"redline {version('redline')}"
    except PackageNotFoundError:
        return "redline"


def _replace(path: Path, text: str) -> None:
    """Write in one step: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
