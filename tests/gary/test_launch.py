"""The process that becomes an agent: what it leaves out, and that nothing is missed.

Each test has a process of its own, because what a process has imported stays in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gary.config import AgentConfig, encode
from gary.launch import is_without_tls

REPOSITORY = Path(__file__).parents[2]
STATE_DIR = Path("/var/lib/gary")


def _in_an_agent_s_process(code: str, config: AgentConfig, **variables: str) -> str:
    """What ``code`` prints in a process that has been loaded for ``config``."""
    loading = (
        f"import sys; from gary.config import decode; from gary.launch import load; load(decode({encode(config)!r})); "
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", loading + code],
        env=os.environ | variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AgentConfig(STATE_DIR), True),
        (AgentConfig(STATE_DIR, runtimes=("docker", "process")), True),
        (AgentConfig(STATE_DIR, docker_host="unix:///run/podman/podman.sock"), True),
        (AgentConfig(STATE_DIR, docker_host="tcp://10.0.0.1:2376"), False),
        (AgentConfig(STATE_DIR, docker_host="https://10.0.0.1:2376"), False),
        (AgentConfig(STATE_DIR, docker_host="ssh://root@10.0.0.1"), False),
        (AgentConfig(STATE_DIR, transport="grpc"), False),
        (AgentConfig(STATE_DIR, runtimes=("docker", "nomad")), False),
    ],
)
def test_an_agent_does_without_tls_when_all_that_could_speak_it_is_known_not_to(
    config: AgentConfig, expected: bool
) -> None:
    assert is_without_tls(config) is expected


def test_an_agent_that_may_need_tls_has_it() -> None:
    code = "import aiohttp.connector, asyncio.sslproto as s; print(s.ssl is not None, aiohttp.connector.ssl is s.ssl)"
    assert _in_an_agent_s_process(code, AgentConfig(STATE_DIR, docker_host="tcp://10.0.0.1:2376")) == "True True"


def test_who_asks_for_tls_later_gets_it() -> None:
    code = (
        "import ssl; before = '_ssl' in sys.modules; context = ssl.create_default_context(); import ssl as again; "
        "print(before, type(context).__name__, again.__spec__.name, '_ssl' in sys.modules)"
    )
    assert _in_an_agent_s_process(code, AgentConfig(STATE_DIR)) == "False SSLContext ssl True"


def test_looking_at_all_modules_loads_none_of_them() -> None:
    code = "import inspect; inspect.getmodule(load); print('_ssl' in sys.modules)"
    assert _in_an_agent_s_process(code, AgentConfig(STATE_DIR)) == "False"


def test_metrics_can_be_scraped_from_an_agent_without_tls() -> None:
    code = (
        "from gary.metrics import Metrics; metrics = Metrics(); metrics.add_counters('api', lambda: {'requests': 3}); "
        "print([line for line in metrics.render().decode().splitlines() if line.startswith('gary_')])"
    )
    assert _in_an_agent_s_process(code, AgentConfig(STATE_DIR)) == "['gary_api_requests_total 3.0']"


@pytest.mark.parametrize("given", [{}, {"FROZENLIST_NO_EXTENSIONS": ""}])
def test_what_an_agent_starts_inherits_the_environment_as_it_was(given: dict[str, str]) -> None:
    code = "import os; print(os.environ.get('FROZENLIST_NO_EXTENSIONS', 'unset'))"
    assert _in_an_agent_s_process(code, AgentConfig(STATE_DIR), **given) == (
        given.get("FROZENLIST_NO_EXTENSIONS", "unset")
    )


def test_a_configuration_that_is_none_ends_it_with_a_hint() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gary.launch", "nonsense"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "this is what 'gary agent' starts" in ended.stderr
