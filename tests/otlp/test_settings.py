import base64
import math
from pathlib import Path

import pytest

from otelbridge.errors import UsageError
from otelbridge.otlp.settings import configured, endpoint_named, endpoints

E = "OTEL_EXPORTER_OTLP_"


def test_defaults_are_those_of_the_specification() -> None:
    found = endpoints(None, {})
    assert found["traces"].url == "http://localhost:4318/v1/traces"
    assert found["metrics"].url == "http://localhost:4318/v1/metrics"
    assert found["traces"].protocol == "http/protobuf"
    assert found["traces"].timeout_s == 10
    assert not found["traces"].gzip
    assert found["traces"].headers == ()


def test_default_for_grpc() -> None:
    found = endpoints(None, {E + "PROTOCOL": "grpc"})["traces"]
    assert (found.url, found.insecure) == ("localhost:4317", True)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("https://h/otlp", "https://h/otlp/v1/traces"),
        ("https://h/otlp/", "https://h/otlp/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ("http://h/otlp?tenant=a", "http://h/otlp/v1/traces?tenant=a"),
    ],
)
@pytest.mark.parametrize("is_option", [True, False])
def test_http_base_gets_the_path_of_the_signal(base: str, url: str, is_option: bool) -> None:
    found = endpoints(base, {}) if is_option else endpoints(None, {E + "ENDPOINT": base})
    assert found["traces"].url == url


@pytest.mark.parametrize(
    ("own", "url"),
    [
        ("http://h:1/custom", "http://h:1/custom"),
        ("http://h:1", "http://h:1/"),
        ("http://h:1/v1/traces", "http://h:1/v1/traces"),
    ],
)
def test_endpoint_of_one_signal_is_used_as_it_is(own: str, url: str) -> None:
    found = endpoints(None, {E + "ENDPOINT": "http://all:4318", E + "TRACES_ENDPOINT": own})
    assert found["traces"].url == url
    assert found["metrics"].url == "http://all:4318/v1/metrics"


def test_option_stands_in_for_every_endpoint_variable() -> None:
    env = {E + "ENDPOINT": "http://env:4318", E + "TRACES_ENDPOINT": "http://own/x", E + "HEADERS": "a=b"}
    found = endpoints("http://option:4318", env)
    assert found["traces"].url == "http://option:4318/v1/traces"
    assert found["traces"].headers == (("a", "b"),)


@pytest.mark.parametrize(
    ("to", "env", "url", "insecure"),
    [
        ("grpc://h:4317", {}, "h:4317", True),
        ("grpcs://h:4317", {}, "h:4317", False),
        ("grpc://h", {}, "h:4317", True),
        ("grpc://[::1]:4317/", {}, "[::1]:4317", True),
        ("http://h:4317", {E + "PROTOCOL": "grpc"}, "h:4317", True),
        ("https://h:4317", {E + "PROTOCOL": "grpc"}, "h:4317", False),
        ("https://h", {E + "PROTOCOL": "grpc"}, "h:443", False),
        ("https://h:4317", {E + "PROTOCOL": "grpc", E + "INSECURE": "true"}, "h:4317", False),
        ("h:4317", {E + "PROTOCOL": "grpc"}, "h:4317", False),
        ("h:4317", {E + "PROTOCOL": "grpc", E + "INSECURE": "True"}, "h:4317", True),
        ("h:4317", {E + "PROTOCOL": "grpc", E + "INSECURE": "false"}, "h:4317", False),
        ("unix:/run/otel.sock", {E + "PROTOCOL": "grpc", E + "INSECURE": "true"}, "unix:/run/otel.sock", True),
        ("dns:///h:4317", {E + "PROTOCOL": "grpc", E + "INSECURE": "true"}, "dns:///h:4317", True),
        ("grpc://h:4317", {E + "PROTOCOL": "http/protobuf"}, "h:4317", True),
    ],
)
def test_grpc_addresses(to: str, env: dict[str, str], url: str, insecure: bool) -> None:
    found = endpoints(to, env)["metrics"]
    assert (found.protocol, found.url, found.insecure) == ("grpc", url, insecure)


def test_variables_of_one_signal_win() -> None:
    env = {
        E + "PROTOCOL": "http/protobuf", E + "TRACES_PROTOCOL": "grpc", E + "TRACES_ENDPOINT": "http://t:4317",
        E + "TIMEOUT": "10000", E + "METRICS_TIMEOUT": "1500",
        E + "COMPRESSION": "gzip", E + "METRICS_COMPRESSION": "none",
        E + "HEADERS": "api-key=all", E + "TRACES_HEADERS": "x=1,y=2",
    }  # fmt: skip
    found = endpoints(None, env)
    assert (found["traces"].protocol, found["metrics"].protocol) == ("grpc", "http/protobuf")
    assert (found["traces"].timeout_s, found["metrics"].timeout_s) == (10.0, 1.5)
    assert (found["traces"].gzip, found["metrics"].gzip) == (True, False)
    assert found["traces"].headers == (("x", "1"), ("y", "2"))
    assert found["metrics"].headers == (("api-key", "all"),)


def test_empty_variable_is_unset() -> None:
    names = [
        "ENDPOINT",
        "TRACES_ENDPOINT",
        "PROTOCOL",
        "HEADERS",
        "TIMEOUT",
        "COMPRESSION",
        "CERTIFICATE",
        "CLIENT_KEY",
        "INSECURE",
    ]
    assert endpoints(None, {E + name: "" for name in names}) == endpoints(None, {})
    assert not configured({E + "ENDPOINT": "", E + "TRACES_ENDPOINT": " "})


@pytest.mark.parametrize("name", ["ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT"])
def test_any_endpoint_variable_configures(name: str) -> None:
    assert configured({E + name: "http://h"})
    assert not configured({E + "PROTOCOL": "grpc"})


def test_timeout_is_milliseconds_and_zero_is_no_limit() -> None:
    assert endpoints(None, {E + "TIMEOUT": "250"})["traces"].timeout_s == 0.25
    assert math.isinf(endpoints(None, {E + "TIMEOUT": "0"})["traces"].timeout_s)


def test_headers_are_percent_decoded() -> None:
    found = endpoints(None, {E + "HEADERS": "Authorization=Basic%20YWI6Yw%3D%3D, x-scope = a%2Cb ,,token=x=y;z"})["traces"]
    assert found.headers == (("authorization", "Basic YWI6Yw=="), ("x-scope", "a,b"), ("token", "x=y;z"))


def test_user_and_password_become_a_header_and_are_shown_nowhere() -> None:
    for to in ("https://me:s3cret%21@h:4318/base?key=s3cret", "grpc://me:s3cret%21@h:4317"):
        found = endpoints(to, {})["traces"]
        assert found.headers == (("authorization", "Basic " + base64.b64encode(b"me:s3cret!").decode()),)
        assert "s3cret" not in repr(found)
        assert "s3cret" not in found.name
        assert "me:" not in found.url
    assert "topsecret" not in repr(endpoints(None, {E + "HEADERS": "api-key=topsecret"}))


def test_authorization_header_wins_over_the_address() -> None:
    found = endpoints("http://me:pw@h", {E + "HEADERS": "Authorization=Bearer x"})["traces"]
    assert found.headers == (("authorization", "Bearer x"),)


@pytest.mark.parametrize(
    ("env", "to"),
    [({}, "http://h:4318/base"), ({}, "grpc://h:4317"), ({}, "grpcs://h"), ({E + "TRACES_ENDPOINT": "http://h:1/as/is"}, None)],
)
def test_name_leads_back_to_the_endpoint(env: dict[str, str], to: str | None) -> None:
    found = endpoints(to, env)["traces"]
    assert endpoint_named(found.name, "traces", {}) == found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ENDPOINT", "h:4318", "grpc://collector:4317"),
        ("ENDPOINT", "ftp://h", "http://collector:4318"),
        ("ENDPOINT", "http://", "http://collector:4318"),
        ("ENDPOINT", "http://h:99999", "a port is a number from 1 to 65535"),
        ("ENDPOINT", "grpc://h:0", "a port is a number from 1 to 65535"),
        ("ENDPOINT", "http://h/a b", "http://collector:4318"),
        ("ENDPOINT", "http://[::1", "http://collector:4318"),
        ("ENDPOINT", "http://h/v1/traces", "are appended"),
        ("ENDPOINT", "grpc://h:4317/path", "neither path nor query"),
        ("TRACES_ENDPOINT", "not a url", "http://collector:4318"),
        ("PROTOCOL", "http/json", "http/protobuf or grpc"),
        ("METRICS_PROTOCOL", "GRPC!", "grpc or http/protobuf"),
        ("TIMEOUT", "10s", "milliseconds"),
        ("TRACES_TIMEOUT", "-1", "milliseconds"),
        ("TIMEOUT", "1.5", "milliseconds"),
        ("COMPRESSION", "zstd", "gzip or none"),
        ("HEADERS", "secret", "name=value"),
        ("HEADERS", "a=1,b c=secret", "entry 2"),
        ("HEADERS", "a=sec%0D%0Aret: x", "printable"),
        ("HEADERS", "Content-Type=text/plain", "'content-type'"),
    ],
)
def test_a_bad_value_names_variable_value_and_expectation(name: str, value: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        endpoints(None, {E + name: value})
    text = str(caught.value)
    assert text.startswith(E + name + ":")
    assert expected in text
    if name == "HEADERS":
        assert "sec" not in text
    else:
        assert value.partition("/v1")[0] in text or "/path" in text or "/v1/traces" in text


def test_a_password_is_not_shown_when_the_address_is_wrong() -> None:
    with pytest.raises(UsageError) as caught:
        endpoints("htp://me:pw1@h:4318?key=pw2", {})
    assert "pw" not in str(caught.value)
    assert "--to" in str(caught.value)


def test_grpc_insecure_must_be_a_boolean() -> None:
    with pytest.raises(UsageError, match=r"OTEL_EXPORTER_OTLP_INSECURE: found 'yes', expected true or false"):
        endpoints("h:4317", {E + "PROTOCOL": "grpc", E + "INSECURE": "yes"})


def test_tls_files_are_tried_at_once(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    with pytest.raises(UsageError, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE: found '/no/such/file'.*readable PEM"):
        endpoints("https://h", {E + "CERTIFICATE": "/no/such/file"})
    with pytest.raises(UsageError, match=r"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: found .*junk.pem.*PEM file of certificates"):
        endpoints("grpcs://h", {E + "TRACES_CERTIFICATE": str(junk)})
    with pytest.raises(UsageError, match=r"CLIENT_CERTIFICATE is set, but OTEL_EXPORTER_OTLP_CLIENT_KEY is not"):
        endpoints("https://h", {E + "CLIENT_CERTIFICATE": str(junk)})
    with pytest.raises(UsageError, match=r"CLIENT_KEY is set, but OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is not"):
        endpoints("https://h", {E + "CLIENT_KEY": str(junk)})
    with pytest.raises(UsageError, match=r"CLIENT_KEY: found .*unencrypted PEM key"):
        endpoints("https://h", {E + "CLIENT_KEY": str(junk), E + "CLIENT_CERTIFICATE": str(junk)})


def test_tls_files_do_not_matter_without_tls() -> None:
    assert endpoints("http://h", {E + "CERTIFICATE": "/no/such/file"})["traces"].ca is None
