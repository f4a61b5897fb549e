"""A profile at work, below HTTP: who calls, may it pass, how will it go. Every endpoint goes through here.

It owns the clock and the seeded streams, and the order: keys, quota, service. It knows no request and no response.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from mock_server import catalogue, errors
from mock_server.background import Background
from mock_server.batches import Jobs
from mock_server.caches import Cache, Caches
from mock_server.quota import Call, Decision, Quota
from mock_server.refusals import held_refusal, refusal
from mock_server.service import Service
from mock_server.store import StoreLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from mock_server.gemini import Answer
    from mock_server.journal import Journal
    from mock_server.profile import Profile
    from mock_server.service import Course
    from mock_server.shared import SharedQuota

ADMIT = "admit"
GEMINI, VERTEX = "gemini", "vertex"


class Caller(msgspec.Struct, frozen=True):
    """Who calls, and through which door. ``version`` is the one in the path."""

    key: str
    project: str
    region: str = "global"
    version: str = "v1beta"
    surface: str = GEMINI


def anchored_clock() -> Callable[[], float]:
    """Return a clock of seconds since the Unix epoch that never steps: the wall read once, then a steady clock."""
    offset_s = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset_s


class Core:
    """What all endpoints share.

    ``clock`` returns seconds since the Unix epoch. ``seed`` fixes every draw (latency, length, faults, random
    refusals, background), so that the same calls at the same moments see the same server.
    """

    def __init__(self, profile: Profile, *, seed: int = 0, clock: Callable[[], float] | None = None) -> None:
        self.profile = profile
        self.models = profile.models or catalogue.DEFAULT_MODELS
        self.clock = clock or anchored_clock()
        self.start_s = self.clock()
        self.quota = Quota(profile.quota_limits(), seed, self.start_s)
        self.service = Service(
            profile.latency,
            profile.faults,
            profile.length,
            random.Random(f"service {seed}"),  # noqa: S311 - a simulation, not a secret
            outages=profile.outages,
            start_s=self.start_s,
        )
        self.shared: SharedQuota | None = None  # the counters, where several processes share them
        self._pending: set[asyncio.Task[None]] = set()
        self.journal: Journal | None = None
        self.caches = Caches()
        self.jobs = Jobs()
        self._others = Background(profile.background, self.start_s, seed) if profile.background.calls_per_s else None
        self._ids = random.Random(f"ids {seed}")  # noqa: S311 - a simulation, not a secret

    def caller(self, key: str, version: str) -> Caller:
        """Return who a key of the Gemini API is. Raises `ApiError` where the profile does not know it."""
        keys = self.profile.keys
        if not key:
            raise errors.no_key()
        if key in keys.rejected:
            raise errors.rejected_key(keys.rejected[key])
        if keys.valid and key not in keys.valid:
            raise errors.wrong_key()
        return Caller(key, keys.projects.get(key, "default"), version=version)

    def check_model(self, model: str, version: str, method: str) -> None:
        """Raise `ApiError` 404 unless the model is served."""
        if model not in self.models:
            raise errors.unknown_model(model, version, method)

    def check_generates(self, model: str, version: str, method: str) -> None:
        """Raise `ApiError` 404 unless the model is served and makes content."""
        if model not in self.models or catalogue.embeds(model):
            raise errors.unknown_model(model, version, method)

    def check_embeds(self, model: str, version: str, method: str) -> None:
        """Raise `ApiError` 404 unless the model is served and makes vectors."""
        if model not in self.models or not catalogue.embeds(model):
            raise errors.unknown_model(model, version, method)

    def call(self, caller: Caller, model: str, costs: Mapping[str, float], tier: str) -> Call:
        """Return a call as the quota sees it."""
        return Call(model, costs, caller.project, caller.key, caller.region, tier)

    async def decide(self, now_s: float, call: Call) -> Decision:
        """Let the call in, or raise the `ApiError` 429 that the profile asks for."""
        if self._others:
            for moment_s, other in self._others.calls_until(now_s, call):
                self.release(await self._ask(moment_s, other))
        decision = self.quota.decide(now_s, call) if self.shared is None else await self._ask(now_s, call)
        if self.journal:
            self.journal.decided(now_s, call, decision)
        if decision.violations:
            raise refusal(self.profile.refusal.shape, now_s, call, decision)
        return decision

    async def hold(self, now_s: float, call: Call) -> Decision:
        """Take what a thing holds while it exists, or raise the 429 that names what is short."""
        decision = await self._ask(now_s, call)
        if self.journal:
            self.journal.decided(now_s, call, decision)
        if decision.violations:
            raise held_refusal(call, decision)
        return decision

    def release(self, decision: Decision) -> None:
        """Give back what a call or a thing held; with a shared store that happens soon after."""
        if not decision.held:
            return
        if self.shared is None:
            self.quota.release(self.clock(), decision)
        else:
            self._soon(self.shared.release(decision))

    async def reset(self) -> None:
        """Forget everything that was counted."""
        self.quota.reset()
        if self.shared is not None:
            await self.shared.forget()

    async def _ask(self, now_s: float, call: Call) -> Decision:
        """Ask the counters, wherever they are; a store that is lost refuses or admits, as configured."""
        if self.shared is None:
            return self.quota.decide(now_s, call)
        try:
            return await self.shared.decide(now_s, call)
        except StoreLostError:
            if self.profile.on_store_loss == ADMIT:
                return Decision()
            raise errors.store_lost() from None

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the shared store that no call waits for; where the store is lost, it is not done."""
        task = asyncio.get_running_loop().create_task(_unless_lost(work))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def charge(self, now_s: float, caller: Caller, model: str, answer: Answer) -> None:
        """Count what an answer costs on the limits on spend, by the profile's prices."""
        prices = self.profile.prices
        if prices.input_usd_per_million or prices.output_usd_per_million:
            usd = prices.usd(answer.prompt_tokens, answer.output_tokens + answer.thought_tokens)
            call = self.call(caller, model, {}, answer.tier)
            if self.shared is None:
                self.quota.charge(now_s, call, "spend", usd)
            else:
                self._soon(self.shared.charge(now_s, call, "spend", usd))

    def cached_tokens(self, caller: Caller, name: str) -> int:
        """Return how many tokens a cache adds to a prompt. Raises `ApiError` 403 where there is none."""
        return self.caches.get(name, caller.project, self.clock()).tokens

    def living_caches(self, project: str) -> list[Cache]:
        """Return the project's caches; what has expired gives its storage back first."""
        now_s = self.clock()
        for cache in self.caches.expired(now_s):
            self.forget_cache(cache)
        return self.caches.listed(project, now_s)

    def forget_cache(self, cache: Cache) -> None:
        """Remove a cache and give its storage back."""
        self.caches.remove(cache)
        self.release(cache.held)

    def settle_jobs(self, now_s: float) -> None:
        """Give back what the jobs that have ended were holding."""
        for job in self.jobs.ended(now_s):
            self.release(job.held)
            job.held = Decision()

    def course(self, now_s: float, decision: Decision, *, max_tokens: int | None, thinks: bool = True) -> Course:
        """Draw how an admitted call goes."""
        return self.service.course(now_s, max_tokens=max_tokens, delay_s=decision.delay_s, thinks=thinks)

    async def wait_until(self, moment_s: float) -> None:
        """Sleep until the clock says so."""
        wait_s = moment_s - self.clock()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def new_id(self, length: int = 24) -> str:
        """Return a seeded identifier of hexadecimal digits."""
        return f"{self._ids.getrandbits(4 * length):0{length}x}"


async def _unless_lost(work: Coroutine[Any, Any, None]) -> None:
    with suppress(StoreLostError):
        await work
