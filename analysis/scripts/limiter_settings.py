# %% [markdown]
# # From the limits to the settings
#
# Why a client that paces exactly at the quota is refused, and what to set instead. Run as a script with a run
# directory as the argument, or open as a notebook with the run in `REDLINE_RUN`.

# %%
import os
import sys

import pandas as pd

from analysis import snippets, wording
from analysis.load import load_chosen
from analysis.recommend import recommend, spread_for
from analysis.report import source
from analysis.verdict import examine

run, table = load_chosen(sys.argv[1:], os.environ)
conclusion = examine(run, table)
result, inference = conclusion.result, conclusion.inference
print(wording.headline(result))

# %% [markdown]
# ## What is known about the limits

# %%
limits = pd.DataFrame(
    {
        "limit": [wording.METRICS.get(limit.metric, limit.metric) for limit in result.limits],
        "state": [wording.STATES[limit.state][1] for limit in result.limits],
        "amount": [wording.amount(limit) for limit in result.limits],
        "how it counts": [wording.explanation(limit) for limit in result.limits],
    }
)
print(limits.to_string(index=False))

# %% [markdown]
# ## What the way there costs
#
# Calls that leave evenly spaced do not arrive so. Within a window W arrive at most `burst + rate (W + J)` calls,
# where J is the spread of the delay; that has to stay under the limit. J is the quantile that the accepted share of
# refusals allows.

# %%
accepted = [0.0001, 0.001, 0.01, 0.05]
spreads = pd.DataFrame({"accepted share": accepted, "J in s": [spread_for(inference, share) for share in accepted]})
print(spreads.to_string(index=False))

# %% [markdown]
# ## The settings, by how much refusal is accepted and by how many instances share the limit

# %%
rows = []
for share in accepted if result.settings else []:
    for instances in (1, 4):
        try:
            settings = recommend(inference, max_throttled=share, instances=instances)
        except ValueError as error:
            print(error)
            continue
        rows.append((share, instances, settings.requests_per_minute, settings.burst, settings.max_concurrency))
print(pd.DataFrame(rows, columns=["accepted", "instances", "rpm each", "burst", "in flight"]).to_string(index=False))

# %% [markdown]
# ## What was verified, and what to paste

# %%
for settings, seen in conclusion.story:
    print(f"{wording.setting(settings)} {'Held' if seen.passed else 'Did not hold'}: {wording.witnessed(seen)}")
print(snippets.settings_toml(result.settings, source(run)) if result.settings else wording.setting(None))
result.settings
