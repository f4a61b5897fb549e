"""The mock's manual: its profile is one, and it names everything there is."""

from __future__ import annotations

from pathlib import Path

import mock_server
from mock_server.errors import REJECTIONS
from mock_server.limits import FAMILIES
from mock_server.profile import REFUSAL_SHAPES, LimitTable, Profile, parse
from mock_server.quota import METRICS
from mock_server.service import Faults

MANUAL = Path(mock_server.__path__[0], "README.md").read_text(encoding="utf-8")


def test_the_profile_in_the_manual_is_valid() -> None:
    """And uses every section that there is."""
    text = MANUAL.partition("```toml\n")[2].partition("```")[0]
    profile = parse(text, "manual")
    assert profile.quota_limits()
    sections = {"limits", "refusal", "latency", "length", "faults", "outages", "background", "prices", "batch", "keys"}
    assert all(f"[{section}]" in text for section in sections)
    assert sections <= set(Profile.__struct_fields__)


def test_the_manual_names_everything() -> None:
    """A word that a profile takes and the manual keeps to itself is of no use."""
    words = {
        *FAMILIES,
        *METRICS,
        *REFUSAL_SHAPES,
        *REJECTIONS,
        *Faults.__struct_fields__,
        *LimitTable.__struct_fields__,
    }
    assert [word for word in sorted(words) if word not in MANUAL] == []
