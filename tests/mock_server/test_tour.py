"""A scripted tour with the official clients, unmodified: every door of the mock, each error as they raise it."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import errors, types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Serve = Callable[..., AbstractContextManager[str]]

MODEL = "gemini-3.8-flash"
FAST_JOBS = "[batch]\npending_s = 0\nper_request_s = 0\n"
SLOW_JOBS = "[batch]\npending_s = 3600\n"


def client(url: str, options: types.HttpOptions | None = None) -> genai.Client:
    """Make the official client; nothing but the address is changed."""
    options = options or types.HttpOptions()
    options.base_url = url
    return genai.Client(api_key="k", http_options=options)


@pytest.fixture(scope="module")
def url(serve: Serve) -> Iterator[str]:
    """Serve without limits, jobs done at once."""
    with serve(FAST_JOBS) as found:
        yield found


@pytest.mark.filterwarnings("ignore:Inheritance class")
def test_chats_and_asynchronous_calls(url: str) -> None:
    """A chat remembers its turns; the asynchronous client does the same over the same wire."""
    gemini = client(url)
    chat = gemini.chats.create(model=MODEL)
    first = chat.send_message("hi")
    second = chat.send_message("and")
    assert first.usage_metadata is not None
    assert second.usage_metadata is not None
    assert second.usage_metadata.prompt_token_count > first.usage_metadata.prompt_token_count

    async def walk() -> tuple[str, int]:
        answer = await gemini.aio.models.generate_content(model=MODEL, contents="hi")
        stream = await gemini.aio.models.generate_content_stream(model=MODEL, contents="hi")
        found = answer.text or "", len([chunk async for chunk in stream])
        await gemini.aio.aclose()
        return found

    text, chunks = asyncio.run(walk())
    assert text
    assert chunks >= 1


def test_embeddings(url: str) -> None:
    """Vectors of length 1, alike for alike texts, as long as asked."""
    gemini = client(url)
    config = types.EmbedContentConfig(output_dimensionality=8)
    found = gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b", "a"], config=config)
    assert found.embeddings is not None
    vectors = [one.values for one in found.embeddings]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1.0)
    assert len(vectors[0]) == 8


def test_each_text_of_a_batch_of_embeddings_is_a_request(serve: Serve) -> None:
    """Three texts take three requests of the quota."""
    limit = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 5\nwindow_s = 3600\n'
    with serve(limit) as url:
        gemini = client(url)
        gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b", "c"])
        with pytest.raises(errors.ClientError, match="429"):
            gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b", "c"])
        gemini.models.embed_content(model="gemini-embedding-001", contents=["a", "b"])


def test_caches(url: str) -> None:
    """Create, use, list, change, delete; cached tokens are part of the prompt's."""
    gemini = client(url)
    text = "word " * 1500
    cache = gemini.caches.create(
        model=MODEL, config=types.CreateCachedContentConfig(contents=text, ttl="60s", display_name="d")
    )
    assert cache.name is not None
    assert cache.usage_metadata is not None
    assert cache.usage_metadata.total_token_count == 1500
    answer = gemini.models.generate_content(
        model=MODEL, contents="one", config=types.GenerateContentConfig(cached_content=cache.name)
    )
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.cached_content_token_count == 1500
    assert answer.usage_metadata.prompt_token_count == 1501
    assert [one.name for one in gemini.caches.list()] == [cache.name]
    later = gemini.caches.update(name=cache.name, config=types.UpdateCachedContentConfig(ttl="600s"))
    assert later.expire_time is not None
    assert cache.expire_time is not None
    assert later.expire_time > cache.expire_time
    gemini.caches.delete(name=cache.name)
    with pytest.raises(errors.ClientError, match="403"):
        gemini.caches.get(name=cache.name)


def test_a_cache_needs_room_and_size(serve: Serve, url: str) -> None:
    """Too small is a 400; no storage is the recorded 429 of the free tier."""
    config = types.CreateCachedContentConfig(contents="word " * 1100)
    roomy = client(url)
    with pytest.raises(errors.ClientError, match="Cached content is too small"):
        roomy.caches.create(model=MODEL, config=types.CreateCachedContentConfig(contents="word"))
    with serve('[[limits]]\nmetric = "cached_tokens"\nfamily = "concurrency"\nlimit = 0\n') as free:
        gemini = client(free)
        with pytest.raises(errors.ClientError, match="limit=0, requested=1100") as caught:
            gemini.caches.create(model=MODEL, config=config)
    assert caught.value.code == 429


@pytest.mark.filterwarnings("ignore:batches.create_embeddings")
def test_batches_run_to_their_end(url: str) -> None:
    """A job of generations and one of embeddings, with their answers inlined."""
    gemini = client(url)
    requests = [types.InlinedRequest(contents="hi", metadata={"key": str(place)}) for place in range(2)]
    job = gemini.batches.create(model=MODEL, src=requests, config={"display_name": "d"})
    assert job.name is not None
    done = gemini.batches.get(name=job.name)
    assert done.state == types.JobState.JOB_STATE_SUCCEEDED
    assert done.dest is not None
    assert done.dest.inlined_responses is not None
    assert [one.metadata["key"] for one in done.dest.inlined_responses if one.metadata] == ["0", "1"]
    assert all(one.response and one.response.text for one in done.dest.inlined_responses)
    assert job.name in [one.name for one in gemini.batches.list()]
    gemini.batches.delete(name=job.name)
    with pytest.raises(errors.ClientError, match="404"):
        gemini.batches.get(name=job.name)
    source = types.EmbeddingsBatchJobSource(inlined_requests=types.EmbedContentBatch(contents=["a", "b"]))
    vectors = gemini.batches.create_embeddings(model="gemini-embedding-001", src=source)
    assert vectors.name is not None
    assert gemini.batches.get(name=vectors.name).state == types.JobState.JOB_STATE_SUCCEEDED


def test_batches_are_limited_and_can_be_cancelled(serve: Serve) -> None:
    """Two jobs at once, ten tokens enqueued; a cancelled job gives back what it held."""
    limits = "".join(
        f'[[limits]]\nmetric = "{metric}"\nfamily = "concurrency"\nlimit = {limit}\n'
        for metric, limit in (("batch_jobs", 2), ("enqueued_tokens", 10))
    )
    with serve(limits + SLOW_JOBS) as url:
        gemini = client(url)

        def create(tokens: int) -> types.BatchJob:
            return gemini.batches.create(model=MODEL, src=[types.InlinedRequest(contents="word " * tokens)])

        first = create(6)
        with pytest.raises(errors.ClientError) as caught:
            create(5)
        create(4)
        assert first.name is not None
        gemini.batches.cancel(name=first.name)
        assert gemini.batches.get(name=first.name).state == types.JobState.JOB_STATE_CANCELLED
        create(6)
        with pytest.raises(errors.ClientError, match="429"):
            create(1)
    assert caught.value.code == 429
    assert [detail["@type"].rpartition(".")[2] for detail in caught.value.details["error"]["details"]] == ["Help"]


@pytest.mark.filterwarnings("ignore:Interactions")
def test_interactions(url: str) -> None:
    """Whole, streamed, fetched again, deleted."""
    gemini = client(url)
    whole = gemini.interactions.create(model=MODEL, input="say hi")
    assert whole.status == "completed"
    assert whole.usage is not None
    assert whole.usage.total_input_tokens == 2
    assert gemini.interactions.get(id=whole.id).id == whole.id
    kinds = [event.event_type for event in gemini.interactions.create(model=MODEL, input="say hi", stream=True)]
    assert kinds[:3] == ["interaction.created", "interaction.status_update", "step.start"]
    assert kinds[-2:] == ["step.stop", "interaction.completed"]
    assert set(kinds[3:-2]) == {"step.delta"}
    gemini.interactions.delete(id=whole.id)


def test_interactions_have_an_error_shape_of_their_own(serve: Serve) -> None:
    """A word for a code and no details; the client raises its own RateLimitError."""
    limit = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 0\nwindow_s = 3600\n'
    with serve(limit) as url:
        gemini = client(url, types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1)))
        with pytest.raises(Exception, match="429") as caught:
            gemini.interactions.create(model=MODEL, input="hi")
    assert type(caught.value).__name__ == "RateLimitError"
    assert caught.value.body["error"]["code"] == "too_many_requests"  # type: ignore[attr-defined]
    assert "details" not in caught.value.body["error"]  # type: ignore[attr-defined]
    with serve(limit + '[refusal]\nshape = "not_enough"') as url:
        gemini = client(url, types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1)))
        with pytest.raises(Exception, match="429") as caught:
            gemini.interactions.create(model=MODEL, input="hi")
    message = "You do not have enough quota to make this request."
    assert caught.value.body == {"error": {"message": message, "code": "too_many_requests"}}  # type: ignore[attr-defined]


def test_vertex_by_project_and_express(serve: Serve) -> None:
    """The Vertex paths, with a token and with a key; regions and projects may have quotas of their own."""
    limit = (
        '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 1\nwindow_s = 3600\n'
        'scope = ["project", "region"]\n[refusal]\nshape = "vertex"\n'
    )
    with serve(limit) as url:

        def vertex(project: str, location: str) -> genai.Client:
            credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
            credentials.token = "t"  # noqa: S105 - the mock takes any
            return genai.Client(
                vertexai=True,
                project=project,
                location=location,
                credentials=credentials,
                http_options=types.HttpOptions(base_url=url),
            )

        here = vertex("one", "europe-west1")
        assert here.models.generate_content(model=MODEL, contents="hi").text
        with pytest.raises(errors.ClientError, match="Resource exhausted"):
            here.models.generate_content(model=MODEL, contents="hi")
        there = vertex("one", "us-central1")
        assert there.models.generate_content(model=MODEL, contents="hi").text
        other = vertex("two", "europe-west1")
        assert other.models.generate_content(model=MODEL, contents="hi").text
        express = genai.Client(vertexai=True, api_key="k", http_options=types.HttpOptions(base_url=url))
        answer = express.models.generate_content(model=MODEL, contents="hi")
        assert answer.usage_metadata is not None
        assert answer.usage_metadata.traffic_type == types.TrafficType.ON_DEMAND


def test_the_openai_client(serve: Serve) -> None:
    """Chat whole and streamed, embeddings, models; a refusal comes in a one-element array."""
    limit = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 2\nwindow_s = 3600\n'
    limit += f'models = ["{MODEL}"]\n'
    with (
        serve(limit) as url,
        openai.OpenAI(api_key="k", base_url=f"{url}/v1beta/openai/", max_retries=0) as gpt,
    ):
        messages: Any = [{"role": "user", "content": "say it"}]
        whole = gpt.chat.completions.create(model=MODEL, messages=messages, max_tokens=3)
        assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 3)  # type: ignore[union-attr]
        options: Any = {"include_usage": True}
        chunks = list(gpt.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=options))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert chunks[-1].usage is not None
        with pytest.raises(openai.RateLimitError) as caught:
            gpt.chat.completions.create(model=MODEL, messages=messages)
        assert caught.value.response.json()[0]["error"]["status"] == "RESOURCE_EXHAUSTED"
        vectors = gpt.embeddings.create(
            model="gemini-embedding-001", input=["a", "b"], dimensions=4, encoding_format="float"
        )
        assert [len(one.embedding) for one in vectors.data] == [4, 4]
        assert MODEL in [model.id.removeprefix("models/") for model in gpt.models.list()]
        with pytest.raises(openai.BadRequestError) as unknown:
            gpt.chat.completions.create(model=MODEL, messages=messages, frequency_penalty=1.0)
        refusal = unknown.value.response.json()[0]["error"]
        assert 'Unknown name "frequency_penalty"' in refusal["message"]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mock")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_live_sessions_over_tls(serve: Serve, tmp_path: Path) -> None:
    """A turn is answered; the second session of one is closed with 1011 and the quota's sentence."""
    cert, key = make_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(cert))
    limit = '[[limits]]\nmetric = "live_sessions"\nfamily = "concurrency"\nlimit = 1\n'

    async def walk(gemini: genai.Client) -> tuple[str, Any]:
        config = types.LiveConnectConfig(response_modalities=[types.Modality.TEXT])
        async with gemini.aio.live.connect(model=MODEL, config=config) as session:
            turn = types.Content(role="user", parts=[types.Part(text="hi")])
            await session.send_client_content(turns=turn)
            texts = [message.text or "" async for message in session.receive()]
            with pytest.raises(errors.APIError) as caught:
                async with gemini.aio.live.connect(model=MODEL, config=config):
                    pass
        async with gemini.aio.live.connect(model=MODEL, config=config):
            return "".join(texts), caught.value

    with serve(limit, tls=(cert, key)) as url:
        text, refusal = asyncio.run(
            walk(client(url, types.HttpOptions(async_client_args={"ssl": trust, "verify": trust})))
        )
    assert text
    assert refusal.code == 1011
    assert "You exceeded your current quota" in str(refusal)


def test_tiers_of_service(serve: Serve) -> None:
    """Priority has a limit of its own, counts on the general one too, and overflows into standard."""
    limits = (
        '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 3\nwindow_s = 3600\n'
        '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 1\nwindow_s = 3600\ntier = "priority"\n'
    )
    with serve(limits) as url:
        gemini = client(url)

        def tier() -> str:
            config = types.GenerateContentConfig(service_tier=types.ServiceTier.PRIORITY)
            answer = gemini.models.generate_content(model=MODEL, contents="hi", config=config)
            assert answer.sdk_http_response is not None
            headers = {name.lower(): value for name, value in (answer.sdk_http_response.headers or {}).items()}
            return headers["x-gemini-service-tier"]

        assert [tier() for _ in range(3)] == ["priority", "standard", "standard"]
        with pytest.raises(errors.ClientError, match="429"):
            tier()


def test_flex_counts_on_the_general_limit(serve: Serve) -> None:
    """It has no limit of its own; the header says who served."""
    limit = '[[limits]]\nmetric = "requests"\nfamily = "anchored_window"\nlimit = 1\nwindow_s = 3600\n'
    with serve(limit) as url:
        gemini = client(url)
        config = types.GenerateContentConfig(service_tier=types.ServiceTier.FLEX)
        answer = gemini.models.generate_content(model=MODEL, contents="hi", config=config)
        assert answer.sdk_http_response is not None
        assert (answer.sdk_http_response.headers or {})["x-gemini-service-tier"] == "flex"
        with pytest.raises(errors.ClientError, match="429"):
            gemini.models.generate_content(model=MODEL, contents="hi")


def test_images_are_counted_for_image_models_alone(serve: Serve) -> None:
    """One image a minute, and as much text as one likes."""
    limit = (
        '[[limits]]\nmetric = "images"\nfamily = "anchored_window"\nlimit = 1\nwindow_s = 3600\nscope = ["project"]\n'
    )
    with serve(limit) as url:
        gemini = client(url)
        gemini.models.generate_content(model="gemini-2.5-flash-image", contents="a cat")
        with pytest.raises(errors.ClientError, match="429"):
            gemini.models.generate_content(model="gemini-2.5-flash-image", contents="a cat")
        assert gemini.models.generate_content(model=MODEL, contents="a cat").text


def test_spend_is_limited_by_the_profiles_prices(serve: Serve) -> None:
    """Each answer costs a dollar; after the first the limit of one is passed."""
    limit = '[[limits]]\nmetric = "spend"\nfamily = "sliding_log"\nlimit = 0.5\nwindow_s = 600\nscope = ["project"]\n'
    prices = "[prices]\noutput_usd_per_million = 1_000_000\n"
    with serve(limit + prices) as url:
        gemini = client(url)
        config = types.GenerateContentConfig(max_output_tokens=1)
        gemini.models.generate_content(model=MODEL, contents="hi", config=config)
        with pytest.raises(errors.ClientError) as caught:
            gemini.models.generate_content(model=MODEL, contents="hi", config=config)
    assert caught.value.status == "RESOURCE_EXHAUSTED"
    assert "Please retry in 9m" in str(caught.value.message)
