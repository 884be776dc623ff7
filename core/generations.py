"""Accepting, cancelling and listing generations."""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict
from tortoise.exceptions import IntegrityError

from core import tracing
from core.accounts.limits import RateLimiter, note, pictures_key
from core.accounts.sessions import tier_of
from core.accounts.tokens import AccessClaims
from core.catalogue import SIZE_STEP, Catalogue, ModelEntry
from core.clock import now
from core.errors import (
    AlreadyFinishedError,
    EmailNotVerifiedError,
    FieldProblem,
    InvalidInputError,
    NotFoundError,
    PremiumRequiredError,
    QuotaExceededError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.messages import MAX_SEED
from core.models import Account, Generation
from core.outbox import JobOutbox
from core.recording import Recorder
from core.repository import generations
from core.repository.admission import Admission, Admissions, Bounds, Request
from core.settings import LimitSettings
from core.telemetry import GENERATIONS_ACCEPTED, RATE_LIMITED

MAX_IDEMPOTENCY_KEY: Final = 128
MAX_PAGE: Final = 100

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class GenerationRequest(BaseModel):
    """What a client asks for; ``None`` takes the model's or the tier's default. Sizes in pixels."""

    model_config = ConfigDict(frozen=True)

    prompt: str
    negative_prompt: str = ""
    model: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    count: int = 1
    scheduler: Scheduler | None = None
    format: ImageFormat = ImageFormat.PNG
    delivery: Delivery | None = None
    idempotency_key: str | None = None

    def fingerprint(self) -> str:
        """SHA-256 of everything but the idempotency key: equal for equal requests. Empty without a key."""
        if self.idempotency_key is None:
            return ""
        return hashlib.sha256(self.model_dump_json(exclude={"idempotency_key"}).encode()).hexdigest()


class Generations:
    """What customers do with generations."""

    def __init__(
        self,
        *,
        outbox: JobOutbox,
        recorder: Recorder,
        catalogue: Catalogue,
        limiter: RateLimiter,
        limits: LimitSettings,
    ) -> None:
        self._outbox = outbox
        self._recorder = recorder
        self._catalogue = catalogue
        self._limiter = limiter
        self._admissions = Admissions()
        self._lookups = generations.Lookups()
        self._max_open = {Tier.NORMAL: limits.max_open_normal, Tier.PREMIUM: limits.max_open_premium}

    async def accept(self, asker: AccessClaims, request: GenerationRequest, *, request_id: str) -> Generation:
        """Accept a request: once this returns, the customer gets pictures or a stated failure.

        The same idempotency key with the same request returns the generation it made before.

        Args:
            asker: what a genuine access token says; whether its session lives is looked up on the way.
            request: what is asked for.
            request_id: of the request to the api, for logs.

        Raises:
            InvalidInputError: a field is outside its limits, or the key was used for another request.
            UnauthenticatedError: the session was ended.
            EmailNotVerifiedError: the account's address is not verified.
            PremiumRequiredError: download was asked for on the normal tier.
            QuotaExceededError: as many generations of this account are open, or as many pictures were asked
                for in the last day, as its tier allows.
        """
        model = self._checked_model(request)
        columns = _columns(request, model, request_id=request_id)
        try:
            admission = await self._admit(asker, request, columns)
        except IntegrityError:
            # The same key arrived twice at the same moment; the other one was first and is seen now.
            admission = await self._admit(asker, request, columns)
        if admission.generation is None:
            return await self._earlier_or_refused(asker, request, admission)
        if admission.restored_in is not None:
            note(self._limiter.pictures(admission.tier).standing(admission.restored_in))
        GENERATIONS_ACCEPTED.labels(tier=admission.tier.value).inc()
        await self._outbox.publish(admission.generation)
        return admission.generation

    async def cancel(self, account: Account, generation_id: UUID) -> Generation:
        """Cancel a generation that has not ended.

        Raises:
            NotFoundError: no such generation, or another account's.
            AlreadyFinishedError: it has ended.
        """
        await self.get(account, generation_id)
        canceled = await self._recorder.finish(generation_id, GenerationState.CANCELED, at=now())
        if canceled is None:
            raise AlreadyFinishedError("This generation has already ended; what it made stays.")
        try:
            await self._outbox.call_off(canceled)
        except ServiceUnavailableError as error:
            # Canceled it is: a worker may make the pictures, but nobody records them.
            log.warning("job_not_called_off", generation=str(generation_id), error=str(error))
        return canceled

    async def find(self, asker: AccessClaims, generation_id: UUID) -> Generation | None:
        """One generation of the asker's; none also where the asker's session was ended."""
        with tracing.span("find generation", kind=tracing.Kind.CLIENT, db__system__name="postgresql"):
            return await self._lookups.find(
                generation_id, session_id=asker.session_id, account_id=asker.account_id
            )

    async def get(self, account: Account, generation_id: UUID) -> Generation:
        """One generation of the account.

        Raises:
            NotFoundError: no such generation, or another account's.
        """
        generation = await generations.owned(account.id, generation_id)
        if generation is None:
            raise NotFoundError("There is no such generation.")
        return generation

    async def page(
        self, account: Account, *, size: int, after: generations.Position | None
    ) -> tuple[Sequence[Generation], bool]:
        """Up to ``size`` generations, newest first, and whether more follow.

        Raises:
            InvalidInputError: ``size`` is not within 1 to 100.
        """
        if not 1 <= size <= MAX_PAGE:
            raise InvalidInputError([FieldProblem("first", f"must be 1 to {MAX_PAGE}, not {size}")])
        found = await generations.page(account.id, size=size + 1, after=after)
        return found[:size], len(found) > size

    async def usage(self, account: Account) -> tuple[int, int]:
        """How many generations of the account are open, and how many may be."""
        tier = tier_of(account, at=now())
        return await generations.count_open(account.id, tier=tier), self._max_open[tier]

    def _checked_model(self, request: GenerationRequest) -> ModelEntry:
        model = self._catalogue.get(request.model) if request.model else self._catalogue.default
        if model is None:
            known = ", ".join(entry.id for entry in self._catalogue.models)
            raise InvalidInputError([FieldProblem("model", f"there is no such model; there is {known}")])
        if problems := _problems(request, model):
            raise InvalidInputError(problems)
        return model

    async def _admit(
        self, asker: AccessClaims, request: GenerationRequest, columns: dict[str, Any]
    ) -> Admission:
        bounds = Bounds(
            most_open=self._max_open,
            cost={tier: self._limiter.pictures(tier).cost(request.count) for tier in Tier},
            pictures_key=pictures_key(asker.account_id),
        )
        with tracing.span("admit", kind=tracing.Kind.CLIENT, db__system__name="postgresql"):
            admission = await self._admissions.admit(
                Request(
                    session_id=asker.session_id,
                    account_id=asker.account_id,
                    delivery=request.delivery,
                    bounds=bounds,
                    columns=columns,
                )
            )
        if admission is None:
            raise UnauthenticatedError("The session was ended; sign in again.")
        return admission

    async def _earlier_or_refused(
        self, asker: AccessClaims, request: GenerationRequest, admission: Admission
    ) -> Generation:
        if not admission.verified:
            raise EmailNotVerifiedError("Verify your e-mail address first: follow the link in the letter.")
        if admission.earlier is not None:
            earlier = await Generation.get(id=admission.earlier)
            if earlier.request_fingerprint == request.fingerprint():
                return earlier
            raise InvalidInputError(
                [FieldProblem("idempotencyKey", "was already used for a request with other parameters")]
            )
        if admission.delivery is Delivery.DOWNLOAD and admission.tier is Tier.NORMAL:
            raise PremiumRequiredError(
                "Download is for premium customers; use delivery EMAIL, or buy premium."
            )
        if admission.open >= (limit := self._max_open[admission.tier]):
            RATE_LIMITED.labels(action="open_generations").inc()
            raise QuotaExceededError(
                f"At most {limit} generations may be waiting or running; wait for one to finish.", limit=limit
            )
        raise await self._limiter.pictures_refused(asker.account_id, admission.tier, request.count)


def _columns(request: GenerationRequest, model: ModelEntry, *, request_id: str) -> dict[str, Any]:
    defaults = model.defaults
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "model": model.id,
        "width": _chosen(request.width, defaults.width),
        "height": _chosen(request.height, defaults.height),
        "steps": _chosen(request.steps, defaults.steps),
        "guidance_scale": _chosen(request.guidance_scale, defaults.guidance_scale),
        "seed": _chosen(request.seed, secrets.randbelow(MAX_SEED + 1)),
        "count": request.count,
        "scheduler": _chosen(request.scheduler, defaults.scheduler),
        "format": request.format,
        "idempotency_key": request.idempotency_key,
        "request_fingerprint": request.fingerprint(),
        "request_id": request_id,
        "traceparent": tracing.place(),
    }


def _chosen(asked: _T | None, default: _T) -> _T:
    return default if asked is None else asked


def _problems(request: GenerationRequest, model: ModelEntry) -> list[FieldProblem]:
    limits = model.limits
    problems: list[FieldProblem] = []

    def check_text(field: str, text: str, *, least: int, most: int) -> None:
        if not least <= len(text.strip()) or len(text) > most:
            problems.append(
                FieldProblem(field, f"must have {least} to {most} characters, this has {len(text)}")
            )
        elif "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            problems.append(FieldProblem(field, "must not contain U+0000 or half a surrogate pair"))

    def check_range(field: str, value: float | None, *, least: float, most: float) -> None:
        if value is not None and not least <= value <= most:
            problems.append(FieldProblem(field, f"must be {least:g} to {most:g}, not {value:g}"))

    def check_size(field: str, value: int | None) -> None:
        check_range(field, value, least=limits.min_size, most=limits.max_size)
        if value is not None and value % SIZE_STEP:
            problems.append(FieldProblem(field, f"must be a multiple of {SIZE_STEP}, not {value}"))

    check_text("prompt", request.prompt, least=1, most=limits.max_prompt_length)
    check_text("negativePrompt", request.negative_prompt, least=0, most=limits.max_prompt_length)
    check_size("width", request.width)
    check_size("height", request.height)
    check_range("steps", request.steps, least=1, most=limits.max_steps)
    check_range("guidanceScale", request.guidance_scale, least=0, most=limits.max_guidance_scale)
    check_range("seed", request.seed, least=0, most=MAX_SEED)
    check_range("count", request.count, least=1, most=limits.max_count)
    if request.idempotency_key is not None:
        check_text("idempotencyKey", request.idempotency_key, least=1, most=MAX_IDEMPOTENCY_KEY)
    return problems
