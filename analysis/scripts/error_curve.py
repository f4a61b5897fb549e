# %% [markdown]
# # How much is refused
#
# The share of calls that is throttled, against the rate at which calls were offered just before, with the
# uncertainty that so few calls leave. Run as a script with a run directory as the argument, or open as a notebook
# with the run in `REDLINE_RUN`.

# %%
import os
import sys

from analysis import curves, figures
from analysis.drawing import Picture
from analysis.exhibits import Common, capacity
from analysis.load import load_chosen
from analysis.verdict import examine
from mock_server.limits import FixedWindow

run, table = load_chosen(sys.argv[1:], os.environ)
conclusion = examine(run, table)
common = Common.of(conclusion, table)

# %% [markdown]
# ## What came of each call

# %%
counts = curves.outcomes(table).value_counts()
print(counts.to_string())

# %% [markdown]
# ## The error curve
#
# Not the rate of the same second: a quota counts what came before. For windows on the clock it is the rate in the
# same window, else the rate just before each call. The band is Wilson's 95 % interval.

# %%
aligned = isinstance(common.spec, FixedWindow)
curve = curves.error_curve(table, common.curve_bin_s, common.origin_s if aligned else None)
print(curve.to_string(index=False))

# %%
Picture(figures.errors(curve, set_per_min=common.set_per_min))

# %% [markdown]
# ## Why calls were refused
#
# The limit that was found, told of every call in turn and asked how full it was. Refusals that it explains lie on
# the line.

# %%
points = curves.used(common.spec, table) if common.spec else None
if points is not None:
    refused = points[points["outcome"] == "throttled"]
    print(f"{len(common.full)} of {len(refused)} refusals came while the limit was full")

# %%
Picture(
    figures.fullness(points, capacity(common.spec), edges_s=common.edges_s)
) if points is not None else "no limit was measured"
