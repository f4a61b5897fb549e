"""What a calibration asks of the compiled loops has been compiled before it begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOTHING_IS_LEFT = """
from analysis import ready
from analysis.kernels import gentle, likelihoods, separation, statistics
from mock_server import limits
from analysis.virtual import Network, Service, VirtualLimit, World
from redline.calibration import CalibrationOptions, calibrate
from redline.simulated import SimulatedTraffic

def compiled():
    rooms = (gentle, likelihoods, separation, statistics)
    return {f.__name__: f.signatures for room in rooms for f in vars(room).values() if hasattr(f, "signatures")}

ready.get_ready()
before = {name: list(known) for name, known in compiled().items()}
assert before["sliding_log"], before
limit = limits.SlidingCounter(12, 7.0, 0.0)
for replicas in (1, 4):
    world = World((VirtualLimit("requests", limit, replicas=replicas),), Network(0.01, 0.02), Service(0.4))
    calibrate(SimulatedTraffic(world, seed=1, max_requests=2000), CalibrationOptions(seed=1, verify=False))
assert compiled() == before, {name: known for name, known in compiled().items() if known != before[name]}
"""


@pytest.mark.acceptance
def test_a_calibration_compiles_nothing_more() -> None:
    """In a process of its own: here, other tests have had everything compiled."""
    run = subprocess.run([sys.executable, "-c", NOTHING_IS_LEFT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
