"""The names that Google gives its quotas, by metric, window and tier. Facts as recorded in error bodies.

Source: ``quotaId`` and ``quotaMetric`` strings seen in 429 bodies and quota lists up to November 2026. A window that
Google has no name for gets one in the same style.
"""

from __future__ import annotations

PREFIX = "generativelanguage.googleapis.com/"
FREE = "free"
# Models whose quota is kept under another name than the one that is asked for, as 429 bodies show.
_COUNTED_AS = {
    "gemini-3.1-pro-preview-customtools": "gemini-3.1-pro",
    "gemini-2.5-flash-image": "gemini-2.5-flash-preview-image",
}
_PERIODS = {60.0: "Minute", 3600.0: "Hour", 86400.0: "Day"}


def counted_as(model: str) -> str:
    """Return the name under which a 429 tells of a model's quota."""
    return _COUNTED_AS.get(model, model)


def quota_names(metric: str, window_s: float | None, *, day: bool, tier: str = "1") -> tuple[str, str]:
    """Return (quotaId, quotaMetric); empty strings where Google is not known to name it.

    ``tier``: free, 1, 2 or 3. ``day``: the window is a Pacific day.
    """
    period = "Day" if day else _PERIODS.get(window_s or 0.0, "Window")
    if metric == "input_tokens":
        return _token_names(period, tier)
    if metric == "requests" and (day or window_s is not None):
        return _request_names(period, tier)
    return "", ""


def embed_names(period: str, tier: str) -> tuple[str, str]:
    """Return the names of a limit on embedding requests per ``Minute`` or ``Day``."""
    quota_id = f"EmbedContentRequestsPer{period}PerProjectPerModel"
    if tier == FREE:
        return f"{quota_id}-FreeTier", f"{PREFIX}embed_content_free_tier_requests"
    return quota_id, f"{PREFIX}embed_content_paid_tier{_suffix(tier)}_requests"


def predict_names(period: str, tier: str, *, long_running: bool) -> tuple[str, str]:
    """Return the names of a limit on pictures or, ``long_running``, films per ``Minute`` or ``Day``."""
    quota_id = f"Predict{'LongRunning' if long_running else ''}RequestsPer{period}PerProjectPerModel"
    metric = f"{PREFIX}predict{'_long_running' if long_running else ''}_requests_per_model"
    if period == "Day":
        metric += "_per_day" if long_running else f"_per_day_paid_tier_{tier}"
    return f"{quota_id}-FreeTier" if tier == FREE else quota_id, metric


def _token_names(period: str, tier: str) -> tuple[str, str]:
    if tier == FREE:
        return (
            f"GenerateContentInputTokensPerModelPer{period}-FreeTier",
            f"{PREFIX}generate_content_free_tier_input_token_count",
        )
    quota_id = f"GenerateContentPaidTierInputTokensPerModelPer{period}"
    return (
        quota_id if tier == "1" else f"{quota_id}-PaidTier{tier}",
        f"{PREFIX}generate_content_paid_tier{_suffix(tier)}_input_token_count",
    )


def _request_names(period: str, tier: str) -> tuple[str, str]:
    quota_id = f"GenerateRequestsPer{period}PerProjectPerModel"
    if tier == FREE:
        return f"{quota_id}-FreeTier", f"{PREFIX}generate_content_free_tier_requests"
    if tier == "1":
        return quota_id, f"{PREFIX}generate_requests_per_model{'_per_day' if period == 'Day' else ''}"
    return quota_id, f"{PREFIX}generate_content_paid_tier{_suffix(tier)}_requests"


def _suffix(tier: str) -> str:
    return "" if tier == "1" else f"_{tier}"
