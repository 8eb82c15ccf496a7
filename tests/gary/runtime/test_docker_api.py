"""Bytes and values of the engine API: whatever an engine sends is read, refused or passed over, and never more."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.runtime import docker_api as api
from gary.runtime.base import ContainerState, Health, Labels, LogChunk, PublishedPort, StartRequest
from gary.spec import Mount, MountType, Service

LABELS = Labels("d", "web/0", "1", "a", "n")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("Id", "Names", "Labels", "State", "Status", "Ports", "Config", "Name", "NetworkSettings", "Health", "ExitCode")


def entry(**changes: Any) -> dict[str, Any]:
    plain = {
        "Id": "1",
        "Names": ["/web"],
        "Labels": api.engine_labels(LABELS),
        "State": "running",
        "Status": "Up 3 seconds",
        "Ports": [],
    }
    return {**plain, **changes}


def test_labels_come_back_as_they_were() -> None:
    assert api.labels_of(api.engine_labels(LABELS)) == LABELS


@pytest.mark.parametrize("missing", sorted(api.engine_labels(LABELS)))
def test_a_container_that_lacks_a_label_is_not_ours(missing: str) -> None:
    labels = api.engine_labels(LABELS)
    del labels[missing]
    assert api.summary_of(entry(Labels=labels)) is None


@pytest.mark.parametrize(
    ("state", "status", "seen"),
    [
        ("running", "Up 2 minutes", (ContainerState.RUNNING, Health.NONE, None)),
        ("running", "Up 2 seconds (health: starting)", (ContainerState.RUNNING, Health.STARTING, None)),
        ("running", "Up 2 hours (healthy)", (ContainerState.RUNNING, Health.HEALTHY, None)),
        ("running", "Up About a minute (unhealthy)", (ContainerState.RUNNING, Health.UNHEALTHY, None)),
        ("paused", "Up 2 hours (Paused)", (ContainerState.RUNNING, Health.NONE, None)),
        ("created", "Created", (ContainerState.CREATED, Health.NONE, None)),
        ("exited", "Exited (137) 3 seconds ago", (ContainerState.EXITED, Health.NONE, 137)),
        ("dead", "Dead", (ContainerState.EXITED, Health.NONE, None)),
        ("something new", "", (ContainerState.EXITED, Health.NONE, None)),
    ],
)
def test_the_status_line_tells_state_health_and_exit_code(
    state: str, status: str, seen: tuple[ContainerState, Health, int | None]
) -> None:
    summary = api.summary_of(entry(State=state, Status=status))
    assert summary is not None
    assert (summary.state, summary.health, summary.exit_code) == seen


def test_a_port_that_is_published_on_every_address_is_one_port() -> None:
    port = {"PrivatePort": 80, "PublicPort": 32768, "Type": "tcp"}
    summary = api.summary_of(
        entry(Ports=[{**port, "IP": "::"}, {**port, "IP": "0.0.0.0"}, {"PrivatePort": 90, "Type": "tcp"}])
    )
    assert summary is not None
    assert summary.ports == (PublishedPort(80, "tcp", "0.0.0.0", 32768),)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_entry_is_read_or_malformed(changes: dict[str, Any]) -> None:
    for read in (api.summary_of, api.inspected):
        try:
            read(entry(**changes))
        except api.MALFORMED:
            continue


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_of_events_or_progress_says_something_or_nothing(line: bytes) -> None:
    assert isinstance(api.container_that_ended(line), str)
    assert isinstance(api.progress_error(line), str)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=20)), max_size=6),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_log_frames_survive_any_cutting(written: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in written)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    frames = api.LogFrames()
    chunks = [chunk for start, end in pairwise(edges) for chunk in frames.feed(stream[start:end])]
    for name, kind in (("stdout", 1), ("stderr", 2)):
        assert b"".join(c.data for c in chunks if c.stream == name) == b"".join(d for k, d in written if k == kind)


@given(st.binary(max_size=200))
def test_any_bytes_are_log_frames_of_some_kind(data: bytes) -> None:
    chunks = api.LogFrames().feed(data)
    assert all(isinstance(chunk, LogChunk) and chunk.data for chunk in chunks)


@pytest.mark.parametrize(
    ("image", "meant"),
    [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("host:5000/a/b", "host:5000/a/b:latest"),
        ("host:5000/a/b:2", "host:5000/a/b:2"),
        ("a@sha256:00", "a@sha256:00"),
    ],
)
def test_an_image_without_a_tag_means_the_latest(image: str, meant: str) -> None:
    assert api.tagged(image) == meant


def test_a_time_of_never_is_zero() -> None:
    assert api.seconds_of("0001-01-01T00:00:00Z") == 0.0
    assert api.seconds_of("1970-01-01T00:00:01.500000001Z") == 1.5


def test_volumes_are_named_after_the_application_unless_they_have_a_name_of_their_own() -> None:
    assert api.volume_name("shop", Mount(MountType.VOLUME, "data", "/d")) == "shop_data"
    assert api.volume_name("shop", Mount(MountType.VOLUME, "data", "/d", external_name="own")) == "own"
    assert api.volume_name("shop", Mount(MountType.VOLUME, "", "/d")) == ""


def test_what_the_spec_leaves_out_is_left_to_the_image() -> None:
    body = api.configuration(StartRequest("x", "app", LABELS, Service("web", image="i"), "0"), (1, 41))
    assert not {"Cmd", "Entrypoint", "User", "WorkingDir", "StopSignal", "Healthcheck"} & set(body)
    emptied = Service("web", image="i", entrypoint=(), command=())
    body = api.configuration(StartRequest("x", "app", LABELS, emptied, "0"), (1, 41))
    assert (body["Entrypoint"], body["Cmd"]) == ([], [])
