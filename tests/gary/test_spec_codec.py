"""The spec as bytes and as JSON: round trips, canonical form, and every kind of bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.spec import (
    SIZE_BYTES_MAX,
    Constraint,
    Healthcheck,
    Mode,
    Mount,
    MountType,
    Partition,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    RuntimeName,
    Service,
    Spec,
    SpecError,
    decode,
    encode,
    fingerprint,
    from_json,
    to_json,
)
from gary.spec.codec import NOT_IN_CONTAINER

EVERYTHING = Service(
    name="web",
    image="nginx:1",
    runtime=RuntimeName.ANY,
    command=("serve", "--fast"),
    entrypoint=(),
    environment=(("A", "1"), ("B", "")),
    labels=(("team", "blue"),),
    ports=(Port(80), Port(443, host=8443, host_ip="127.0.0.1"), Port(53, protocol="udp")),
    expose=(Port(9000),),
    mounts=(
        Mount(MountType.VOLUME, "data", "/data", external_name="old-data"),
        Mount(MountType.BIND, "/etc/hosts", "/etc/hosts", read_only=True),
        Mount(MountType.TMPFS, "", "/tmp", size_bytes=1 << 20),
    ),
    network_mode="host",
    user="1000:1000",
    working_dir="/srv",
    healthcheck=Healthcheck(test=("CMD", "true"), interval_s=1, retries=5),
    restart=RestartPolicy(RestartCondition.ON_FAILURE, delay_s=0.5, attempts_max=4, window_s=10),
    stop_grace_period_s=3,
    stop_signal="SIGINT",
    init=True,
    read_only=True,
    cap_add=("NET_ADMIN",),
    cap_drop=("ALL",),
    resources=Resources(0.5, 1 << 28, 100, 0.25, 1 << 27),
    mode=Mode.GLOBAL,
    replicas=3,
    constraints=(Constraint("node.labels.disk", True, "ssd"), Constraint("node.hostname", False, "old")),
    replicas_per_node_max=2,
    update_parallelism=0,
    partition=Partition.HOLD,
)

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True).filter(lambda name: name != "witness")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ports = st.builds(
    Port,
    container=st.integers(1, 65_535),
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    host=st.none() | st.integers(1, 65_535),
)
services = st.builds(
    Service,
    name=names,
    image=texts,
    runtime=st.sampled_from(RuntimeName),
    command=st.none() | st.lists(texts, max_size=3).map(tuple),
    environment=st.dictionaries(st.sampled_from(["A", "B", "PATH"]), texts).map(lambda d: tuple(d.items())),
    labels=st.dictionaries(names, texts, max_size=3).map(lambda d: tuple(d.items())),
    ports=st.lists(ports, max_size=3, unique=True).map(tuple),
    healthcheck=st.none() | st.builds(Healthcheck, test=st.just(("CMD", "x")), interval_s=st.floats(0, 100)),
    stop_grace_period_s=st.floats(0, 1000) | st.integers(0, 1000),
    replicas=st.integers(0, 10_000),
    mode=st.sampled_from(Mode),
    cap_add=st.lists(st.sampled_from(["A", "B", "C"]), unique=True).map(tuple),
)
specs = st.builds(
    Spec,
    name=names,
    services=st.lists(services, max_size=3, unique_by=lambda service: service.name).map(tuple),
    resilience=st.integers(1, 128),
)


@given(specs)
def test_what_is_encoded_is_decoded_to_the_same_and_encodes_to_the_same_bytes(spec: Spec) -> None:
    data = encode(spec)
    once = decode(data)
    assert encode(once) == data
    assert decode(encode(once)) == once
    assert {service.name for service in once.services} == {service.name for service in spec.services}


@given(specs)
def test_bytes_and_json_carry_the_same_spec(spec: Spec) -> None:
    assert to_json(decode(encode(spec))) == to_json(spec)
    assert msgpack.unpackb(encode(spec)) == to_json(spec)


@given(services)
def test_a_fingerprint_survives_the_codec(service: Service) -> None:
    (read,) = decode(encode(Spec("app", (service,)))).services
    assert fingerprint(read) == fingerprint(service)


def test_every_field_survives() -> None:
    spec = Spec("app", (EVERYTHING,), resilience=5)
    (service,) = decode(encode(spec)).services
    assert service == replace(
        EVERYTHING,
        ports=service.ports,
        constraints=service.constraints,
    )
    assert set(service.ports) == set(EVERYTHING.ports)
    assert set(service.constraints) == set(EVERYTHING.constraints)
    assert from_json(to_json(spec)) == decode(encode(spec))


def test_order_that_means_nothing_does_not_change_the_bytes() -> None:
    turned = replace(
        EVERYTHING,
        environment=tuple(reversed(EVERYTHING.environment)),
        ports=tuple(reversed(EVERYTHING.ports)),
        constraints=tuple(reversed(EVERYTHING.constraints)),
        stop_grace_period_s=3.0,
    )
    other = Service(name="a", image="x")
    assert encode(Spec("app", (EVERYTHING, other))) == encode(Spec("app", (other, turned)))
    assert fingerprint(turned) == fingerprint(EVERYTHING)


def test_defaults_take_no_bytes() -> None:
    assert to_json(Spec("app", (Service("web", image="nginx"),))) == {
        "name": "app",
        "services": {"web": {"image": "nginx"}},
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_a_spec_or_an_error(data: bytes) -> None:
    try:
        spec = decode(data)
    except SpecError:
        return
    assert decode(encode(spec)) == spec


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_a_spec_or_an_error(value: object) -> None:
    with pytest.raises(SpecError):
        from_json({"name": "app", "services": {"web": {"image": "x", "ports": [value]}}, "resilience": value})


@given(st.sampled_from(sorted(to_json(Spec("app", (EVERYTHING,)))["services"]["web"])), json_values)
def test_any_value_under_any_key_is_taken_or_an_error_at_that_path(key: str, value: object) -> None:
    try:
        spec = from_json({"name": "app", "services": {"web": {"image": "x", "command": ["y"], key: value}}})
    except SpecError as error:
        refusal = error
    else:
        assert from_json(to_json(spec)) == spec
        return
    assert refusal.path.startswith("services.web")
    assert refusal.reason


def _service(**keys: Any) -> dict[str, Any]:
    return {"name": "app", "services": {"web": {"image": "nginx", **keys}}}


BAD: list[tuple[object, str, str]] = [
    (None, "", "must be a map"),
    ([], "", "must be a map"),
    ({}, "name", "is missing"),
    ({"name": "app"}, "services", "is missing"),
    ({"name": "app", "services": {}}, "services", "at least one"),
    ({"name": "App", "services": {}}, "name", "a-z"),
    ({"name": "a" * 64, "services": {}}, "name", "a-z"),
    ({"name": "app\n", "services": {}}, "name", "a-z"),
    ({"name": "app", "services": {"witness": {"image": "x"}}}, "services.witness", "Gary's own"),
    ({"name": "app", "services": {"We b": {"image": "x"}}}, "services.We b", "a-z"),
    ({"name": "app", "services": {1: {}}}, "services", "not text"),
    ({"name": "app", "services": {"web": {}}}, "services.web", "needs an image"),
    (_service(runtime="process"), "services.web", "needs a command"),
    (_service(runtime="podman"), "services.web.runtime", "docker, process, any"),
    (_service(colour="red"), "services.web.colour", "not a key"),
    (_service(replicas=10_001), "services.web.replicas", "from 0 to 10000"),
    (_service(replicas=True), "services.web.replicas", "whole number"),
    (_service(replicas=1.0), "services.web.replicas", "whole number"),
    (_service(stop_grace_period_s=float("nan")), "services.web.stop_grace_period_s", "from 0"),
    (_service(stop_grace_period_s=-1), "services.web.stop_grace_period_s", "from 0"),
    (_service(ports=[{"container": 0}]), "services.web.ports[0].container", "65535"),
    (_service(ports=[{"host": 1}]), "services.web.ports[0].container", "missing"),
    (_service(ports=[{"container": 1, "protocol": "icmp"}]), "services.web.ports[0].protocol", "tcp"),
    (_service(environment={"A=B": "x"}), "services.web.environment", "without '='"),
    (_service(environment={"A": 1}), "services.web.environment.A", "text"),
    (_service(environment={"A": "\0"}), "services.web.environment.A", "NUL"),
    (_service(environment={"A": "\ud800"}), "services.web.environment.A", "Unicode"),
    (_service(mounts=[{"type": "bind", "source": "x", "target": "/x"}]), "services.web.mounts[0].source", "absolute"),
    (_service(constraints=[{"attribute": "node.role"}]), "services.web.constraints[0].attribute", "node.id"),
    (_service(network_mode="overlay"), "services.web.network_mode", "bridge, host, none"),
    (_service(command="x"), "services.web.command", "list"),
    (_service(cap_add=["net admin"]), "services.web.cap_add[0]", "capability"),
    ({**_service(), "resilience": 0}, "resilience", "from 1 to 128"),
    (_service(environment={f"V{i}": "x" * 100_000 for i in range(12)}), "", "bytes"),
    ({"name": "app", "services": {f"s{i}": {"image": "x"} for i in range(300)}}, "services", "at most 256"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "path", "words"), BAD, ids=lambda value: str(value)[:60])
def test_bad_json_is_refused_with_its_path_and_a_reason(value: object, path: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        from_json(value)
    assert raised.value.path == path
    assert words in raised.value.reason


def test_bytes_that_are_too_long_are_refused_unread() -> None:
    with pytest.raises(SpecError, match="at most"):
        decode(b"\x80" * (SIZE_BYTES_MAX + 1))


def test_a_deep_nest_is_refused() -> None:
    with pytest.raises(SpecError):
        decode(b"\x91" * 100_000)


def test_a_spec_that_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(SpecError, match="replicas"):
        encode(Spec("app", (Service("web", image="x", replicas=-1),)))
    with pytest.raises(SpecError, match="two services"):
        encode(Spec("app", (Service("web"), Service("web"))))


def test_the_fingerprint_ignores_exactly_what_a_container_is_not_made_of() -> None:
    plain = Service(name="web")
    for field in ("mode", "replicas", "constraints", "replicas_per_node_max", "update_parallelism", "partition"):
        assert field in NOT_IN_CONTAINER
    for field in Service.__dataclass_fields__:
        changed = replace(plain, **{field: getattr(EVERYTHING, field)})
        expected = field in NOT_IN_CONTAINER or field == "name"
        assert (fingerprint(changed) == fingerprint(plain)) is expected, field
