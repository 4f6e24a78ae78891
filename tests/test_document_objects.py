"""Documents on S3: how many requests, and what servers and networks do wrong."""

from __future__ import annotations

import datetime
import json
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from typing import Any

import pytest
from conftest import child_environment, run_python
from document_places import BUCKET, KEYS, Place, client
from s3_proxy import Proxy

import richstore
from richstore import ConflictError, plain

pytest.importorskip("obstore", reason="the extra `s3` is not installed")
botocore_errors = pytest.importorskip("botocore.exceptions", reason="boto3 is not installed")

QUICK = {
    "max_retries": 3,
    "retry_timeout": datetime.timedelta(seconds=2),
    "backoff": {
        "init_backoff": datetime.timedelta(milliseconds=5),
        "max_backoff": datetime.timedelta(milliseconds=20),
        "base": 2,
    },
}


@pytest.fixture
def quick(proxied: Place) -> Place:
    """The place behind the proxy, with retries that soon end."""
    return Place(proxied.location, **proxied.options, retry_config=QUICK)


def written(place: Place) -> Any:
    """Return the value that is stored."""
    stored = place.stored()
    return None if stored is None else json.loads(stored)


# --- the server of these tests ---


def test_the_server_keeps_conditions(s3: Place, s3_server: str) -> None:
    """The S3 server of the tests enforces If-Match and If-None-Match on PUT."""
    raw, key = client(s3_server), s3.location.partition(f"{BUCKET}/")[2]
    first = raw.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")["ETag"]
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0123456789abcdef0123456789abcdef"'}):
        with pytest.raises(botocore_errors.ClientError) as caught:
            raw.put_object(Bucket=BUCKET, Key=key, Body=b"2", **condition)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.stored() == b"1"
    raw.put_object(Bucket=BUCKET, Key=key, Body=b"2", IfMatch=first)
    assert s3.stored() == b"2"
    raw.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(botocore_errors.ClientError) as caught:
        raw.put_object(Bucket=BUCKET, Key=key, Body=b"3", IfMatch=first)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 412)
    assert s3.stored() is None


def test_the_server_lets_one_of_many_through(s3: Place, s3_server: str) -> None:
    """Of many conditional PUTs at the same time, the server of the tests does one."""
    key, done = s3.location.partition(f"{BUCKET}/")[2], []

    def put(raw: Any, number: int) -> None:
        try:
            raw.put_object(Bucket=BUCKET, Key=key, Body=b"%d" % number, IfNoneMatch="*")
        except botocore_errors.ClientError:
            return
        done.append(number)

    threads = [threading.Thread(target=put, args=(client(s3_server), n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1 and s3.stored() == b"%d" % done[0]


# --- requests ---


def test_one_get_to_open_and_one_put_to_commit(proxied: Place, proxy: Proxy) -> None:
    """A document is opened by one GET and saved by one conditional PUT; nothing is listed."""
    document = proxied.open(default=[])
    assert proxy.methods == ["GET"]
    document.value.append(1)
    document.save()
    assert proxy.methods == ["GET", "PUT"]
    assert proxy.headers[-1]["if-none-match"] == "*"
    etag = document.version["e_tag"]
    with document:
        document.value.append(2)
        document.value.append(3)
    document.save()
    assert proxy.methods == ["GET", "PUT", "PUT"]
    assert proxy.headers[-1]["if-match"] == etag
    document.autosave = True
    document.value.append(4)
    assert proxy.methods[3:] == ["PUT"]
    document.reload()
    assert proxy.methods[4:] == ["GET"]
    document.delete()
    assert len(proxy.methods) == 6
    assert not any("list-type" in path or path.endswith(BUCKET) for _, path, _ in proxy.requests)


def test_a_lost_race_costs_one_get(proxied: Place, s3: Place, proxy: Proxy) -> None:
    """A single change that was not first: a refused PUT, a GET, and a PUT."""
    document = proxied.open(default=[], autosave=True)
    s3.open(autosave=True).value.append("other")
    del proxy.requests[:]
    document.value.append("mine")
    assert [(method, status) for method, _, status in proxy.requests] == [
        ("PUT", 412),
        ("GET", 200),
        ("PUT", 200),
    ]
    assert written(s3) == ["other", "mine"]


def test_what_others_set_stays(s3: Place, s3_server: str) -> None:
    """The content type and metadata of an object are kept when it is saved."""
    raw, key = client(s3_server), s3.location.partition(f"{BUCKET}/")[2]
    raw.put_object(
        Bucket=BUCKET, Key=key, Body=b"[]", ContentType="application/json", Metadata={"by": "me"}
    )
    s3.open(autosave=True).value.append(1)
    s3.open(autosave=True).value.append(2)
    found = raw.head_object(Bucket=BUCKET, Key=key)
    assert found["ContentType"] == "application/json" and found["Metadata"]["by"] == "me"
    assert written(s3) == [1, 2]


@pytest.mark.parametrize("key", ["a b", "a#b", "a%20b", "ä/€.json", "a~[1]{2}.json", "a+b&c=d"])
def test_keys_are_taken_as_they_are(s3: Place, s3_server: str, key: str) -> None:
    """The key of an object is what the URL says, character by character."""
    key = s3.location.partition(f"{BUCKET}/")[2] + key
    client(s3_server).put_object(Bucket=BUCKET, Key=key, Body=b"[1]")
    place = Place(f"s3://{BUCKET}/{key}", **s3.options)
    place.open(autosave=True).value.append(2)
    assert client(s3_server).get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"[1, 2]"


# --- faults ---

FAULTS = {
    "500 before": {"status": 500},
    "500 after": {"status": 500, "done": True},
    "503 before": {"status": 503},
    "503 twice": {"status": 503, "times": 2},
    "503 after": {"status": 503, "done": True},
    "409": {"status": 409},
    "drop before": {},
    "drop after": {"done": True},
    "slow": {"true": True, "delay": 0.3},
    "slow and late": {"true": True, "before": 0.3},
}


@pytest.mark.parametrize(
    ("method", "fault"),
    [("PUT", fault) for fault in FAULTS] + [("GET", fault) for fault in FAULTS if fault != "409"],
)
def test_a_fault_that_passes(
    quick: Place, s3: Place, proxy: Proxy, fault: str, method: str
) -> None:
    """Whatever becomes of a request or its answer, a change is there exactly once."""
    document = quick.open(default=[0], autosave=True)
    held = document.value
    if method == "GET":
        s3.open(autosave=True).value.append("other")
    proxy.fault(method, **FAULTS[fault])
    held.append(1)
    assert not proxy.faults
    wanted = [0, *["other"] * (method == "GET"), 1]
    assert held == wanted == written(s3)
    with document:
        held.append(2)
    assert held == [*wanted, 2] == written(s3)


@pytest.mark.parametrize(
    "fault",
    [
        FAULTS["drop after"],
        FAULTS["503 after"],
        # for much longer than the client waits
        {"true": True, "delay": 1.2},
        {"true": True, "before": 1.2},
    ],
    ids=["drop after", "503 after", "slow", "slow and late"],
)
def test_a_fault_while_others_write(
    quick: Place,
    s3: Place,
    proxy: Proxy,
    fault: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write without an answer is found to be done also when others have written since."""
    client_options = {"timeout": datetime.timedelta(milliseconds=400)}
    document = quick.open(default=[0], autosave=True, client_options=client_options)
    other = s3.open(autosave=True)
    place = document._place
    outcome = place._outcome

    def others_come_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        while proxy.under_way:
            time.sleep(0.01)
        other.value.append("other")
        other.value.append("again")
        return outcome(*arguments)

    monkeypatch.setattr(place, "_outcome", others_come_first)
    proxy.fault("PUT", **fault)
    document.value.append(1)
    assert written(s3) == [0, 1, "other", "again"]
    document.value.append(2)
    assert document.value == [0, 1, "other", "again", 2] == written(s3)


def test_a_write_that_was_not_done_while_others_wrote(
    quick: Place, s3: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write without an answer that others were faster than is made again, once, on theirs."""
    document = quick.open(default=[0], autosave=True)
    other = s3.open(autosave=True)
    place = document._place
    outcome = place._outcome

    def others_come_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        other.value.append("other")
        return outcome(*arguments)

    monkeypatch.setattr(place, "_outcome", others_come_first)
    proxy.fault("PUT", 500)
    document.value.append(1)
    assert document.value == [0, "other", 1] == written(s3)


def test_nobody_can_tell(
    quick: Place, s3: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a stranger wrote after a write without an answer, the error says what is unknown."""
    document = quick.open(default=[0], autosave=True)
    place = document._place
    outcome = place._outcome

    def stranger_comes_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        s3.put(b'["stranger"]')
        return outcome(*arguments)

    monkeypatch.setattr(place, "_outcome", stranger_comes_first)
    proxy.fault("PUT", done=True)
    with pytest.raises(OSError, match="unknown whether") as caught:
        document.value.append(1)
    assert not isinstance(caught.value, ConflictError)
    assert document.value == [0]
    document.value.append(2)
    assert document.value == ["stranger", 2] == written(s3)


@pytest.mark.parametrize("status", [412, None])
def test_an_answer_that_says_no_to_a_write_that_was_done(
    quick: Place, s3: Place, proxy: Proxy, status: int | None
) -> None:
    """A repeated PUT that is refused because its first try was done counts as done."""
    document = quick.open(default=[0], autosave=True)
    proxy.fault("PUT", done=True)
    proxy.fault("GET", 500, times=2)
    if status:
        proxy.fault("PUT", status)
    document.value.append(1)
    assert document.value == [0, 1] == written(s3)


def test_the_marks_are_needed(
    quick: Place, s3: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: were no marks read back, a change would be there twice, and this sees it."""
    from richstore.documents.objects import ObjectPlace

    get = ObjectPlace._get

    def without_marks(self: Any) -> Any:
        found = get(self)
        return found and (found[0], found[1], {})

    document = quick.open(default=[0], autosave=True)
    document.value.append(1)
    monkeypatch.setattr(ObjectPlace, "_get", without_marks)
    monkeypatch.setattr(ObjectPlace, "_unknown", lambda self, error: self._conflict())
    proxy.fault("PUT", done=True)
    document.value.append(2)
    assert written(s3) == [0, 1, 2, 2]


def test_a_fault_that_stays(quick: Place, s3: Place, proxy: Proxy) -> None:
    """When the faults do not end, the error says what, in time, and nothing has changed."""
    document = quick.open(default=[0], autosave=True)
    for status, wanted in ((500, "500 InternalError"), (503, "503 SlowDown"), (None, "could not")):
        proxy.fault("PUT", status, times=1000)
        start = time.monotonic()
        with pytest.raises(OSError, match=wanted):
            document.value.append(1)
        with pytest.raises(OSError, match=wanted), document:
            document.value.append(1)
        assert time.monotonic() - start < 30
        proxy.faults.clear()
        assert document.value == [0] == written(s3)
    proxy.fault("GET", 503, times=1000)
    for call in (document.reload, quick.open):
        with pytest.raises(OSError, match="503 SlowDown"):
            call()
    proxy.faults.clear()
    document.value.append(2)
    assert document.value == [0, 2] == written(s3)


def test_a_server_that_always_refuses(quick: Place, s3: Place, proxy: Proxy) -> None:
    """A refusal of a block is a ConflictError, and leaves memory and object as they were."""
    document = quick.open(default=[0], autosave=True)
    proxy.fault("PUT", 412)
    with pytest.raises(ConflictError), document:
        document.value.append(1)
    assert document.value == [0] == written(s3)
    proxy.fault("PUT", 412, times=3)
    document.value.append(2)
    proxy.fault("PUT", 412, times=3)
    document.update(lambda value: value.append(3))
    assert document.value == [0, 2, 3] == written(s3)


INTERRUPTED = """
import json, sys, richstore
location, options = json.loads(sys.argv[1])
document = richstore.document(location, default=[0], autosave=True, **options)
print("ready", flush=True)
sys.stdin.readline()
try:
    document.value.append(1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
document.value.append(2)
print(json.dumps(richstore.plain(document.value)), flush=True)
"""


def test_an_interrupt_in_the_middle_of_a_request(proxied: Place, s3: Place, proxy: Proxy) -> None:
    """Ctrl-C while a PUT is under way: the change is there or not, once, and memory knows."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, json.dumps([proxied.location, proxied.options])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        proxy.fault("PUT", true=True, delay=2)
        process.stdin.write("go\n")
        process.stdin.flush()
        while proxy.faults:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        lines = process.stdout.read().splitlines()
    assert lines[0] == "interrupted"
    assert json.loads(lines[1]) == written(s3)
    assert written(s3) in ([0, 1, 2], [0, 2])


# --- errors and secrets ---

SECRETS = {
    "access_key_id": "AKIASECRETSECRET",
    "secret_access_key": "very/secret+key",
    "session_token": "token/of+a/session==",
}


def texts_of(error: BaseException) -> str:
    """Return all that an error and those before it say."""
    texts = traceback.format_exception(error)
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None:
            texts += [str(one), repr(one), repr(one.args), repr(one.__dict__)]
            todo += [one.__cause__, one.__context__]
    return "\n".join(texts)


def assert_no_secrets(text: str) -> None:
    """Fail when a text has one of the secrets in it."""
    assert text
    for secret in SECRETS.values():
        assert secret not in text


@pytest.fixture
def secret(quick: Place) -> Place:
    """The place behind the proxy, with keys that are to be seen nowhere."""
    return Place(quick.location, **{**quick.options, **SECRETS})


def test_the_search_for_secrets_finds_them(secret: Place, proxy: Proxy) -> None:
    """What obstore itself says of a refusal has the key and the token of the request in it."""
    document = secret.open(default=[], autosave=True)
    proxy.fault("GET", 403)
    import obstore

    with pytest.raises(Exception, match="AKIA") as caught:
        obstore.get(document._place._reading, document._place._key)
    with pytest.raises(AssertionError):
        assert_no_secrets(texts_of(caught.value))
    with pytest.raises(AssertionError):
        try:
            raise OSError("text") from None
        except OSError as error:
            error.__context__ = caught.value
            assert_no_secrets(texts_of(error))


def test_wrong_credentials(secret: Place, proxy: Proxy) -> None:
    """A refusal is a PermissionError that says so, and tells no secret, however it is met."""
    document = secret.open(default=[], autosave=True)
    document.value.append(1)
    for method, call in (
        ("GET", secret.open),
        ("GET", document.reload),
        ("PUT", lambda: document.value.append(2)),
        ("PUT", lambda: document.update(lambda value: value.append(2))),
    ):
        proxy.fault(method, 403, times=100)
        with pytest.raises(PermissionError, match="credentials") as caught:
            call()
        proxy.faults.clear()
        assert "403 SignatureDoesNotMatch" in str(caught.value)
        assert secret.location in str(caught.value)
        assert_no_secrets(texts_of(caught.value))
    assert document.value == [1]
    assert_no_secrets(repr(document) + repr(document._place) + str(document.__dict__))


@pytest.mark.parametrize("status", [500, 503, 409, 412, None])
def test_no_fault_tells_a_secret(secret: Place, proxy: Proxy, status: int | None) -> None:
    """Whatever the server says, no error has a secret in it."""
    document = secret.open(default=[], autosave=True)
    for method in ("GET", "PUT"):
        proxy.fault(method, status, times=1000)
        with pytest.raises((OSError, ConflictError)) as caught, document:
            document.value.append(1)
            if method == "GET":
                secret.open()
        proxy.faults.clear()
        assert_no_secrets(texts_of(caught.value))


def test_a_wrong_bucket(s3: Place) -> None:
    """A bucket that does not exist is a FileNotFoundError that says so."""
    wrong = Place(s3.location.replace(BUCKET, "nosuchbucket"), **{**s3.options, **SECRETS})
    with pytest.raises(FileNotFoundError, match="bucket nosuchbucket does not exist") as caught:
        wrong.open(default=[])
    assert_no_secrets(texts_of(caught.value))


def test_a_bucket_that_was_deleted(s3: Place, s3_server: str) -> None:
    """Saving into a bucket that was deleted, and deleting there, says so as well."""
    raw = client(s3_server)
    where = {"LocationConstraint": KEYS["region"]}
    raw.create_bucket(Bucket="shortlived", CreateBucketConfiguration=where)
    place = Place("s3://shortlived/a.json", **s3.options)
    fresh, document = place.open(default=[]), place.open(default=[], autosave=True)
    raw.delete_object(Bucket="shortlived", Key="a.json")
    raw.delete_bucket(Bucket="shortlived")
    for call in (fresh.save, lambda: document.value.append(1), document.delete):
        with pytest.raises(FileNotFoundError, match="bucket shortlived does not exist"):
            call()
    assert document.value == []


def test_no_network(quick: Place) -> None:
    """A server that cannot be reached is a ConnectionError that says so, in time."""
    options = {**quick.options, **SECRETS, "endpoint": "http://127.0.0.1:9"}
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="cannot be reached") as caught:
        Place(quick.location, **options).open(default=[])
    assert time.monotonic() - start < 30
    assert_no_secrets(texts_of(caught.value))


def test_a_network_that_goes(quick: Place, s3: Place, s3_server: str) -> None:
    """A change without a network raises ConnectionError and is undone; the next one works."""
    with Proxy(s3_server) as proxy:
        place = Place(quick.location, **{**quick.options, "endpoint": proxy.url})
        document = place.open(default=[0], autosave=True)
        port = proxy.server_port
    with pytest.raises(ConnectionError, match="cannot be reached"):
        document.value.append(1)
    assert document.value == [0] == written(s3)
    # another server at the same port
    with Proxy(s3_server, port):
        document.value.append(2)
    assert document.value == [0, 2] == written(s3)


def test_no_credentials(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials the error says that there are none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Proxy("http://127.0.0.1:9") as metadata:
        metadata.fault("PUT", 403, times=100)
        metadata.fault("GET", 403, times=100)
        with pytest.raises(PermissionError, match="credentials"):
            richstore.document(
                s3.location,
                endpoint=s3.options["endpoint"],
                region="eu-central-1",
                aws_metadata_endpoint=metadata.url,
                retry_config=QUICK,
            )


def test_credentials_by_the_environment(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, token, region and endpoint come from the environment when they are not given."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRETS["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["secret_access_key"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS["session_token"])
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with Proxy(s3.options["endpoint"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        richstore.document(s3.location, default=[1], autosave=True)
        sent = proxy.headers[-1]
    assert SECRETS["access_key_id"] in sent["authorization"]
    assert "/eu-central-1/" in sent["authorization"]
    assert sent["x-amz-security-token"] == SECRETS["session_token"]
    assert written(s3) == [1]


def test_credentials_that_are_given(secret: Place, proxy: Proxy) -> None:
    """Keys, session token, region and endpoint that are given are what is used."""
    secret.open(default=[], region="us-west-2")
    sent = proxy.headers[-1]
    assert SECRETS["access_key_id"] in sent["authorization"]
    assert "/us-west-2/" in sent["authorization"]
    assert sent["x-amz-security-token"] == SECRETS["session_token"]


def test_logs_tell_no_secret(secret: Place) -> None:
    """With every log switched on, nothing that a process prints has a secret in it."""
    code = """
import json, logging, os, sys, richstore
logging.basicConfig(level=1)
location, options = json.loads(sys.argv[1])
document = richstore.document(location, default=[], autosave=True, **options)
document.value.append(1)
print(document, vars(document))
document = richstore.document(location.replace("state", "x"), endpoint="http://127.0.0.1:9",
    retry_config={"max_retries": 0}, **{k: v for k, v in options.items() if k != "endpoint"})
"""
    options = {name: secret.options[name] for name in (*SECRETS, "region", "endpoint")}
    environment = {**child_environment(), "RUST_LOG": "trace", "RUST_BACKTRACE": "full"}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, json.dumps([secret.location, options])],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )
    assert "<richstore.Document" in done.stdout and "ConnectionError" in done.stderr
    assert_no_secrets(done.stdout)
    assert_no_secrets(done.stderr)


@pytest.mark.parametrize(
    "options",
    [
        {"no_such_option": "very/secret+key"},
        {"access_key_id": 5, "secret_access_key": "very/secret+key"},
        {"virtual_hosted_style_request": "very/secret+key"},
        {"client_options": {"no_such": "very/secret+key"}},
        {"retry_config": {"max_retries": "very/secret+key"}},
    ],
)
def test_options_that_are_not_understood(options: dict[str, Any]) -> None:
    """Wrong options raise ValueError with their names and without their values."""
    with pytest.raises(ValueError, match=sorted(options)[0]) as caught:
        richstore.document("s3://bucket/key.json", default=[], **options)
    assert_no_secrets(texts_of(caught.value))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://AKIASECRETSECRET:very/secret+key@bucket/key.json", "arguments"),
        ("s3://AKIASECRETSECRET@bucket/key.json", "arguments"),
        ("s3://bucket/key.json?secret=very/secret+key", "arguments"),
        ("s3://bucket", "no object"),
        ("s3://bucket/", "no object"),
        ("s3://bucket/dir/", "no object"),
        ("s3:///key", "no bucket"),
        ("s3://bucket//key", "empty"),
        ("s3://bucket/a/../key", "empty"),
        ("ftp://bucket/key", "no place for documents"),
        ("https://bucket/key", "no place for documents"),
    ],
)
def test_urls_that_are_no_place(url: str, said: str) -> None:
    """A URL that names no object, or has keys in it, is a ValueError that does not tell these."""
    with pytest.raises(ValueError, match=said) as caught:
        richstore.document(url, default=[])
    assert_no_secrets(texts_of(caught.value))


def test_other_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gs://` and `az://` take bucket or container, key and options as their names say."""
    from richstore.documents.objects import ObjectPlace

    place = ObjectPlace("az://container/dir/state.json", {"account_name": "me", "account_key": ""})
    config = place._reading.config
    assert (config["container_name"], config["account_name"]) == ("container", "me")
    assert place._reading.prefix is None and place._key == "dir/state.json"
    assert place.name == "state.json" and place.location == "az://container/dir/state.json"
    key = '{"private_key": "k", "private_key_id": "i", "client_email": "c", "disable_oauth": true}'
    place = ObjectPlace("gs://bucket/dir/state.json", {"service_account_key": key})
    assert place._reading.config["bucket"] == "bucket" and place._key == "dir/state.json"
    for url, options in (
        ("az://container/key", {}),
        ("az://container/key", {"account_name": "me", "account_key": "very/secret+key!"}),
        ("gs://bucket/key", {"service_account_key": '{"very/secret+key'}),
    ):
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
        with pytest.raises(ValueError, match="not understood, or one is missing") as caught:
            ObjectPlace(url, options)
        assert_no_secrets(texts_of(caught.value))


def test_without_obstore() -> None:
    """Without obstore the error names the extra; files need none."""
    code = """
import sys
sys.modules["obstore"] = None
import richstore
richstore.document(sys.argv[1], default=[])
richstore.document("s3://bucket/key")
"""
    done = run_python(code, "/tmp/no-such-document.json")
    assert "pip install 'richstore[s3]'" in done.stderr


# --- S3Dictionary ---

# what S3Dictionary 0.13 stores of {"name": "ä€", "nested": {"list": [1, 2.5, None, True]}}
BY_S3DICTIONARY = (
    rb'{"name": "\u00e4\u20ac", "nested": {"list": [1, 2.5, null, true]}, "1": "int key"}'
)


def test_an_object_of_s3dictionary(s3: Place, s3_server: str) -> None:
    """An object that S3Dictionary wrote opens as it is, and is one that it can read afterwards."""
    raw, key = client(s3_server), s3.location.partition(f"{BUCKET}/")[2]
    raw.put_object(Bucket=BUCKET, Key=key, Body=BY_S3DICTIONARY)
    document = s3.open(default={}, autosave=True)
    assert plain(document.value) == {
        "name": "ä€",
        "nested": {"list": [1, 2.5, None, True]},
        "1": "int key",
    }
    assert not document.dirty and s3.stored() == BY_S3DICTIONARY
    document.value["nested"]["list"].append(3)
    found = json.loads(raw.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert found == plain(document.value)


# --- many processes ---

WORKER = """
import json, sys, richstore
from datetime import timedelta
location, options, how, count, number = json.loads(sys.argv[1])
if how == "planted":
    import obstore
    put, how = obstore.put, "autosave"
    obstore.put = lambda *arguments, mode, **more: put(*arguments, **more)
if how == "unmarked":
    from richstore.documents.objects import ObjectPlace
    get, how = ObjectPlace._get, "autosave"
    ObjectPlace._get = lambda self: (found := get(self)) and (*found[:2], {})
    ObjectPlace._unknown = lambda self, error: self._conflict()
if location.startswith("s3:"):
    short, long = timedelta(milliseconds=5), timedelta(milliseconds=50)
    backoff = {"init_backoff": short, "max_backoff": long}
    options["retry_config"] = {"max_retries": 50, "backoff": backoff}
document = richstore.document(location, default=[], autosave=how == "autosave", **options)
print("ready", flush=True)
sys.stdin.read()
for n in range(count):
    if how == "autosave":
        document.value.append([number, n])
    else:
        document.update(lambda value: value.append([number, n]))
"""


@pytest.fixture
def appended() -> Any:
    """A function that lets processes append to a document."""

    def append(place: Place, how: str, processes: int, count: int) -> None:
        running = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER]
                + [json.dumps([place.location, place.options, how, count, number])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(),
            )
            for number in range(processes)
        ]
        try:
            for process in running:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
            for process in running:
                assert process.stdin is not None
                process.stdin.close()
            for process in running:
                assert process.wait(timeout=100) == 0
        finally:
            for process in running:
                process.kill()
                with process:
                    pass

    return append


@pytest.mark.parametrize("how", ["autosave", "update"])
@pytest.mark.parametrize("place", ["file", "s3"], indirect=True)
def test_processes_that_append(
    place: Place, how: str, appended: Any, request: pytest.FixtureRequest
) -> None:
    """Eight processes that append 100 times each lose nothing, and keep their own order.

    Without --long they are so many for single changes on S3 alone.
    """
    is_long = request.config.getoption("--long") or (how == "autosave" and not place.is_file)
    processes, count = (8, 100) if is_long else (3, 20)
    appended(place, how, processes, count)
    found = written(place)
    assert len(found) == processes * count
    for number in range(processes):
        assert [n for who, n in found if who == number] == list(range(count))


def test_processes_behind_a_bad_network(
    proxied: Place, proxy: Proxy, appended: Any, request: pytest.FixtureRequest
) -> None:
    """With a fault in each fourth request, done or not, each append is there exactly once."""
    processes, count = (8, 100) if request.config.getoption("--long") else (3, 20)
    proxy.chance = random.Random(5)
    appended(proxied, "autosave", processes, count)
    proxy.chance = None
    found = written(proxied)
    assert sorted(map(tuple, found)) == [(a, n) for a in range(processes) for n in range(count)]
    faults = [status for _, _, status in proxy.requests if status in (0, 500, 503)]
    assert len(faults) > processes * count / 8


def test_processes_that_do_not_read_marks(proxied: Place, proxy: Proxy, appended: Any) -> None:
    """Planted fault: were no marks read, appends would be there twice, and the count sees it."""
    proxy.chance = random.Random(5)
    appended(proxied, "unmarked", 2, 30)
    proxy.chance = None
    assert len(written(proxied)) > 60


def test_processes_that_write_without_a_condition(s3: Place, appended: Any) -> None:
    """Planted fault: were PUTs not conditional, appends would be lost, and the count sees it."""
    appended(s3, "planted", 3, 30)
    assert len(written(s3)) < 90
