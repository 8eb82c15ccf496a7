"""What is the process runtime's own: records on disk, processes that outlive their agent, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.runtime import health, linux, logfiles, records
from gary.runtime.base import Container, ContainerRuntime, ContainerState, Health
from gary.runtime.errors import StartRefused
from gary.runtime.host import ports_in
from gary.runtime.process import ProcessRuntime, live_processes
from gary.runtime.programs import program_of, signal_number, unhonourable
from gary.runtime.testing import PATIENCE_S, Bench, exited, until, written
from gary.spec import Healthcheck, Mount, MountType, Port, Resources, RuntimeName, Service

SLEEPER = Service(name="web", runtime=RuntimeName.PROCESS, command=("sleep", "600"))


async def _nothing(_: Container) -> None:
    return None


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(lambda: ProcessRuntime(tmp_path), SLEEPER, _nothing)
    yield bench
    await bench.clean()
    assert live_processes(tmp_path) == []


AGENT = """
import asyncio, os, signal, sys
from gary.runtime.base import Labels, StartRequest
from gary.runtime.process import ProcessRuntime
from gary.spec import RuntimeName, Service

async def main():
    service = Service(name="web", runtime=RuntimeName.PROCESS, command=("sh", "-c", "echo $$; exec sleep 600"))
    labels = Labels(sys.argv[2], "web/0", "1", "a", sys.argv[3])
    await ProcessRuntime(sys.argv[1]).start(StartRequest(sys.argv[4], "app", labels, service, "0"))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_container_survives_the_death_of_its_agent(bench: Bench, tmp_path: Path) -> None:
    request = bench.request()
    words = (str(tmp_path), bench.deployment, bench.node, request.name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, *words, env=environment)
    assert await agent.wait() == -signal.SIGKILL
    runtime = bench.open()
    (found,) = await runtime.containers(bench.node)
    assert found.state is ContainerState.RUNNING
    assert await runtime.start(request) == found
    program = linux.identify(int(await _first_words(runtime, found)))
    assert program is not None
    waiting = asyncio.create_task(until(runtime, bench.node, exited))
    linux.send(program, signal.SIGKILL)
    (ended,) = await waiting
    assert ended.exit_code == 128 + signal.SIGKILL


async def _first_words(runtime: ContainerRuntime, container: Container) -> bytes:
    async with asyncio.timeout(PATIENCE_S), aclosing(runtime.logs(container.id, follow=True, tail=None)) as log:
        return (await anext(log)).data


async def test_whatever_the_program_leaves_behind_ends_with_it(bench: Bench) -> None:
    runtime = bench.open()
    await runtime.start(bench.request(bench.shell("setsid sleep 600 & setsid sleep 601 & exit 0")))
    (ended,) = await until(
        runtime, bench.node, lambda seen: exited(seen) and not any(linux.marked(container.id) for container in seen)
    )
    assert ended.exit_code == 0


async def test_a_supervisor_that_was_killed_takes_its_program_along_and_leaves_no_code(bench: Bench) -> None:
    runtime = bench.open()
    started = await runtime.start(bench.request())
    waiting = asyncio.create_task(
        until(runtime, bench.node, lambda seen: exited(seen) and not linux.marked(started.id))
    )
    linux.send(linux.marked(started.id)[0], signal.SIGKILL)
    (ended,) = await waiting
    assert ended.exit_code is None
    assert ended.reason


async def test_a_run_that_was_never_recorded_is_found_by_its_mark(bench: Bench, tmp_path: Path) -> None:
    first = bench.open()
    started = await first.start(bench.request())
    await first.close()
    tmp_path.joinpath(started.id, "process.json").unlink()
    (found,) = await bench.open().containers(bench.node)
    assert (found.id, found.state) == (started.id, ContainerState.RUNNING)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"format": 99}', b"[" * 10_000])
@pytest.mark.parametrize("file", ["record.json", "process.json"])
async def test_a_record_that_cannot_be_read_is_set_aside_and_the_others_live_on(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, content: bytes
) -> None:
    first = bench.open()
    broken = await first.start(bench.request(index=0))
    whole = await first.start(bench.request(index=1))
    await first.close()
    tmp_path.joinpath(broken.id, file).write_bytes(content)
    runtime = bench.open()
    with caplog.at_level(logging.ERROR):
        assert [container.id for container in await runtime.containers(bench.node)] == [whole.id]
    assert "set aside" in caplog.text
    assert [name for name in os.listdir(tmp_path) if name.startswith(f"set-aside-{broken.id}")]  # noqa: PTH208
    while left := linux.marked(broken.id):
        for process in left:
            linux.send(process, signal.SIGKILL)
            await linux.ended(process)
            linux.reap(process)


async def test_asking_from_outside_which_containers_there_are_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    started = await bench.open().start(bench.request())
    for name in ("removed-0a", "unfinished-0b", "set-aside-0c", "0d"):
        tmp_path.joinpath(name).mkdir()
    before = os.listdir(tmp_path)  # noqa: PTH208
    assert records.ids(tmp_path) == sorted([started.id, "0d"])
    assert os.listdir(tmp_path) == before  # noqa: PTH208
    assert records.ids(tmp_path / "nothing") == []


async def test_a_pid_that_was_used_again_is_not_the_container(bench: Bench, tmp_path: Path) -> None:
    first = bench.open()
    started = await first.start(bench.request())
    await first.close()
    path = tmp_path / started.id / "process.json"
    real = json.loads(path.read_bytes())
    # Another process, which runs and has the recorded pid.
    path.write_text(json.dumps({**real, "pid": os.getpid()}))
    (found,) = await bench.open().containers(bench.node)
    assert found.state is ContainerState.EXITED


async def test_it_does_not_see_the_agents_variables(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "1")
    runtime = bench.open()
    started = await runtime.start(bench.request(bench.shell("env")))
    assert b"SECRET_OF_THE_AGENT" not in (await written(runtime, started))["stdout"]


async def test_it_runs_with_signals_as_they_are_by_default(bench: Bench) -> None:
    runtime = bench.open()
    started = await runtime.start(bench.request(bench.shell("grep SigIgn /proc/self/status")))
    ignored = int((await written(runtime, started))["stdout"].split()[1], 16)
    # 32 and 33 are the C library's own; it has posix_spawn ignore them, and no program can use them.
    assert ignored & ~(1 << 31 | 1 << 32) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run programs as somebody else")
async def test_it_runs_as_the_user_that_was_asked_for(bench: Bench) -> None:
    runtime = bench.open()
    started = await runtime.start(bench.request(bench.shell("id -u; id -g"), user="nobody"))
    assert (await written(runtime, started))["stdout"].split() == [b"65534", b"65534"]


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("volumes", {"mounts": (Mount(MountType.TMPFS, "", "/x"),)}),
        ("network_mode", {"network_mode": "none"}),
        ("init", {"init": True}),
        ("read_only", {"read_only": True}),
        ("cap_add", {"cap_add": ("NET_ADMIN",)}),
        ("cap_drop", {"cap_drop": ("CHOWN",)}),
        ("cpus", {"resources": Resources(limit_cpus=1)}),
        ("memory", {"resources": Resources(limit_memory_bytes=1)}),
        ("pids", {"resources": Resources(limit_pids=1)}),
        ("ports", {"ports": (Port(80),)}),
        ("ports", {"ports": (Port(80, host=8080),)}),
        ("sctp", {"ports": (Port(80, "sctp", host=80),)}),
        ("a.b", {"environment": (("a.b", "1"),)}),
        ("command", {"command": None}),
        ("working_dir", {"working_dir": "/no/such/directory"}),
        ("user", {"user": "nobody-by-that-name"}),
        ("stop_signal", {"stop_signal": "SIGNONE"}),
    ],
)
def test_what_only_a_container_can_have_is_refused_by_name(words: str, changes: dict[str, Any]) -> None:
    if words == "sctp":
        words = "tcp and udp"
    with pytest.raises(StartRefused, match=words):
        program_of(replace(SLEEPER, **changes))


def test_what_a_process_can_have_is_not_refused() -> None:
    assert unhonourable(replace(SLEEPER, ports=(Port(80, host=80),), environment=(("A_1", ""),))) == []


@pytest.mark.parametrize(
    ("text", "number"), [("", 15), ("SIGTERM", 15), ("int", 2), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3)]
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@given(st.text(max_size=12))
def test_any_text_is_a_signal_or_refused(text: str) -> None:
    with suppress(StartRefused):
        assert 0 < signal_number(text) <= signal.SIGRTMAX


@given(st.text(max_size=80))
def test_any_status_line_is_read_or_nothing(text: str) -> None:
    linux.parse_status(text)
    assert linux.parse_status(f"1 (a) b) S 7 1 9 {'0 ' * 15}42 0") == linux.Status("S", 7, 9, 42)


@given(st.text(max_size=200))
def test_any_table_of_sockets_is_ports(table: str) -> None:
    assert all(port >= 0 for port in ports_in(table))
    line = "0: 0100007F:1F90 00000000:0000 0A"
    assert ports_in(f"header\n{line}\n{line.replace('0A', '01').replace('1F90', '0016')}") == {8080}


@given(st.lists(st.text("ab", max_size=5), max_size=12), st.integers(0, 14), st.booleans())
def test_the_last_lines_of_a_file_are_its_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], count: int, is_whole: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    text = "\n".join(lines) + ("\n" if is_whole and lines else "")
    path.write_text(text)
    kept = text.splitlines(keepends=True)
    assert path.read_text()[logfiles.last_lines(path, count) :] == "".join(kept[-count:] if count else [])


def test_a_log_that_grows_too_large_loses_its_beginning_and_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"x" * 99 + b"\n"
    path.write_bytes(line * 10_000)
    logfiles.trim(path, 256 * 1024)
    assert path.stat().st_blocks * 512 <= 256 * 1024
    first = logfiles.beginning(path)
    assert 0 < first < path.stat().st_size
    assert logfiles.read(path, first).startswith(line)
    assert first % 100 == 0


CHECK = Healthcheck(("CMD", "x"), interval_s=5, retries=3, start_period_s=10, start_interval_s=1)


def test_failures_count_in_a_row_and_one_success_is_enough() -> None:
    findings = health.Findings()
    for passed in (False, False, True, False, False):
        findings = health.after(findings, CHECK, passed, age_s=60)
    assert findings.health is Health.HEALTHY
    assert health.after(findings, CHECK, False, age_s=60).health is Health.UNHEALTHY


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=30))
def test_health_never_goes_back_to_starting_and_fails_only_after_enough_failures(
    checks: list[tuple[bool, float]],
) -> None:
    findings, row = health.Findings(), 0
    for passed, age_s in checks:
        before, findings = findings, health.after(findings, CHECK, passed, age_s)
        row = 0 if passed else row + 1
        assert findings.health is not Health.STARTING or before.health is Health.STARTING
        assert passed <= (findings.health is Health.HEALTHY)
        assert findings.health is not Health.UNHEALTHY or row >= CHECK.retries
        assert health.pause_s(findings, CHECK, age_s) in (1, 5)


async def test_closing_ends_nothing_and_leaves_no_task(bench: Bench) -> None:
    runtime = bench.open()
    check = Healthcheck(("CMD", "sleep", "60"), interval_s=0.01)
    await runtime.start(bench.request(healthcheck=check))
    async with asyncio.timeout(PATIENCE_S):
        await runtime.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    (found,) = await bench.open().containers(bench.node)
    assert found.state is ContainerState.RUNNING
