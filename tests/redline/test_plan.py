"""Plans: what a phase will send, how it is read from a file, and what it says when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.plan import Phase, describe, read_plan, read_trace, seconds


@pytest.mark.parametrize(
    ("phase", "calls"),
    [
        (Phase(shape="constant", duration="1m", rpm=120), 120),
        (Phase(shape="ramp", duration=60, rpm=120), 60),
        (Phase(shape="ramp", duration=60, from_rpm=60, rpm=120), 90),
        (Phase(shape="step", duration=60, from_rpm=60, rpm=120, steps=2), 90),
        (Phase(shape="burst", duration=60, in_flight=20), 20),
        (Phase(shape="burst", duration=60, in_flight=20, rpm=60), 60),
        (Phase(shape="idle", duration=60), 0),
    ],
)
def test_expected_calls_are_those_of_the_schedule(phase: Phase, calls: int) -> None:
    """What is told before the run is what the schedule holds."""
    assert phase.expected_calls == calls
    assert len(list(phase.offsets_s())) == calls


def test_closed_phase_promises_no_number() -> None:
    """There the answers decide."""
    phase = Phase(shape="closed", duration=5, in_flight=3)
    assert phase.expected_calls is None
    assert list(phase.offsets_s()) == []


def test_poisson_differs_by_seed_and_worker_and_repeats_itself() -> None:
    """The same words give the same schedule; another seed or worker another one."""
    phase = Phase(shape="constant", duration=10, rpm=600, arrivals="poisson")
    first = list(phase.offsets_s(1))
    assert first == list(phase.offsets_s(1))
    assert first != list(phase.offsets_s(2))
    assert list(phase.offsets_s(1, 0, 2)) != list(phase.offsets_s(1, 1, 2))


def test_trace_replaces_the_shape(tmp_path: Path) -> None:
    """Recorded moments, moved to start at 0 and cut at the end of the phase."""
    trace = tmp_path / "trace.csv"
    trace.write_text("id,sent_s\na,10.5\nb,10.0\nc,99\n")
    assert list(Phase(shape="constant", duration=30, arrivals=str(trace)).offsets_s()) == [0.0, 0.5]


@pytest.mark.parametrize(("text", "said"), [("a,b\n1,2\n", "column sent_s"), ("sent_s\n1\nx\n", "line 3")])
def test_trace_that_cannot_be_read_is_named(tmp_path: Path, text: str, said: str) -> None:
    """The file and the line."""
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(ValueError, match=said):
        list(Phase(shape="constant", duration=30, arrivals=str(trace)).offsets_s())


def test_plan_file_is_read(tmp_path: Path) -> None:
    """All keys of the contract."""
    path = tmp_path / "plan.toml"
    path.write_text('[[phases]]\nshape = "ramp"\nduration = "1h30m"\nfrom_rpm = 5\nrpm = 10\noutput_tokens = 3\n')
    assert read_plan(path) == (Phase(shape="ramp", duration="1h30m", from_rpm=5.0, rpm=10.0, output_tokens=3),)


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ('shape = "zigzag"\nduration = 1', "shape is one of constant, ramp"),
        ('shape = "constant"\nduration = 1', "needs rpm"),
        ('shape = "closed"\nduration = 1', "needs in_flight"),
        ('shape = "constant"\nrpm = 1\nduration = "soon"', "duration takes seconds"),
        ('shape = "constant"\nrpm = -1\nduration = 1', "rpm takes a number of at least 0"),
        ('shape = "constant"\nrmp = 1\nduration = 1', "rmp"),
        ('shape = "idle"\nduration = 0', "duration takes"),
        ("shape =", "nvalid"),
    ],
)
def test_wrong_plan_is_one_line_that_names_file_and_key(tmp_path: Path, phase: str, said: str) -> None:
    """Nothing is guessed and nothing is sent."""
    path = tmp_path / "plan.toml"
    path.write_text(f"[[phases]]\n{phase}\n")
    with pytest.raises(ValueError, match=said) as raised:
        read_plan(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xa9\x00\xff", "is no CSV file"), (b"", "a column sent_s"), (b"sent_s\nsoon\n", "line 2")]
)
def test_a_trace_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """Binary rubbish, an empty file and a word where a moment goes: one line with the file's name."""
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as raised:
        read_trace(path)
    assert str(path) in str(raised.value)


def test_description_adds_up() -> None:
    """Calls, tokens and time of all phases."""
    phases = (
        Phase(name="warm", shape="constant", duration=60, rpm=60, prompt_tokens=10, output_tokens=2),
        Phase(shape="closed", duration=5, in_flight=4),
    )
    lines = describe(phases).splitlines()
    assert lines[0] == "warm: constant, 60 s, about 60 calls"
    assert lines[-1] == "in all: 65 s, about 60 calls, 600 input tokens, at most 120 output tokens"


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), (2.5, 2.5)])
def test_durations_as_people_write_them(text: float | str, value: float) -> None:
    """With and without a unit."""
    assert seconds(text) == value


def test_the_documented_plan_is_one(tmp_path: Path) -> None:
    """The example in the scenarios' README."""
    readme = Path(__file__).parents[2] / "locustfiles" / "README.md"
    path = tmp_path / "plan.toml"
    path.write_text(readme.read_text().partition("```toml\n")[2].partition("```")[0])
    assert [phase.label for phase in read_plan(path)] == ["ramp", "callers"]
