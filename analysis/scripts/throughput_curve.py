# %% [markdown]
# # How much gets through
#
# What passes, against what is offered. Below the limit all of it passes; above it no more than the limit does,
# however hard one pushes. Run as a script with a run directory as the argument, or open as a notebook
# (`jupytext --to ipynb`) with the run in `REDLINE_RUN`.

# %%
import os
import sys

from analysis import curves, figures
from analysis.drawing import Picture
from analysis.exhibits import Common
from analysis.load import load_chosen
from analysis.verdict import examine

run, table = load_chosen(sys.argv[1:], os.environ)
conclusion = examine(run, table)
common = Common.of(conclusion, table)

# %% [markdown]
# ## Second by second
#
# A call counts in the second in which it was sent, so that offered is the sum of what became of it.

# %%
seconds = curves.per_bin(table)
print(seconds.drop(columns="verification").to_string(index=False))

# %%
Picture(figures.per_second(seconds, 1.0, edges_s=common.edges_s, proof_s=common.proof_s))

# %% [markdown]
# ## By offered rate
#
# One point for each window of the limit that was found (or a fixed span, where none was). A quota remembers: a
# window can let through less than the limit when the one before it was overdrawn, never more.

# %%
curve = curves.throughput_curve(table, common.curve_bin_s, common.origin_s)
print(curve.to_string(index=False))

# %%
Picture(
    figures.throughput(
        curve, limit_per_min=common.limit_per_min, set_per_min=common.set_per_min, bin_s=common.curve_bin_s
    )
)

# %% [markdown]
# ## The most that got through

# %%
peak = curve["admitted_per_min"].max() if len(curve) else float("nan")
print(f"most admitted over {common.curve_bin_s:g} s: {peak:.4g} a minute; the limit found: {common.limit_per_min}")
peak
