"""Bad Compose files: every error at once, each with its line, its key and a reason; and any bytes whatever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gary.compose import ComposeError, ComposeErrors, load
from gary.compose.keys import DEPLOY, KEYS, SERVICE, TOP, Refused
from gary.compose.reference import reference
from gary.spec import Spec, from_json, to_json

HERE = Path("/srv/app/compose.yaml")
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "compose.md"


def errors_of(text: str | bytes) -> tuple[ComposeError, ...]:
    with pytest.raises(ComposeErrors) as raised:
        load(HERE, {"SET": "x"}, text=text)
    return raised.value.errors


def errors_in_service(lines: str) -> list[tuple[int, str, str]]:
    """Line within ``lines``, key within the service, reason."""
    text = f"services:\n  web:\n    image: nginx\n{indent(dedent(lines), '    ')}\nvolumes: {{data: }}\n"
    return [(error.line - 3, error.key.removeprefix("services.web."), error.reason) for error in errors_of(text)]


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    errors = errors_of(
        dedent("""\
            name: Bad Name
            servces: {}
            networks: {front: {}}
            services:
              web:
                ports: ["80:80", 99999, "a:b"]
                depends_on: [db]
                environment:
                  A: ${NOPE:?must be set}
                deploy:
                  replicas: many
                  update_config: {order: start-first}
                colour: red
              db: {image: "not an image"}
              Cache: {image: redis}
              witness: {image: x}
            x-gary: {resilence: 2}
        """)
    )
    assert [(error.line, error.key) for error in errors] == [
        (1, "name"),
        (2, "servces"),
        (3, "networks"),
        (5, "services.web"),
        (6, "services.web.ports[1]"),
        (6, "services.web.ports[2]"),
        (7, "services.web.depends_on"),
        (9, "services.web.environment.A"),
        (11, "services.web.deploy.replicas"),
        (12, "services.web.deploy.update_config.order"),
        (13, "services.web.colour"),
        (14, "services.db.image"),
        (15, "services.Cache"),
        (16, "services.witness"),
        (17, "x-gary.resilence"),
    ]
    assert errors[1].hint == "Is it services?"
    assert "must be set" in errors[7].reason
    assert str(errors[0]).startswith("/srv/app/compose.yaml:1:7: name: is 'Bad Name'; ")


@pytest.mark.parametrize(
    ("lines", "key", "reason"),
    [
        ('command: "unbalanced \'quote"', "command", "split into arguments"),
        ("command: {a: b}", "command", "is a mapping"),
        ("entrypoint: [[a]]", "entrypoint[0]", "is a list"),
        ("user: [a]", "user", "is a list"),
        ("user:", "user", "has no value"),
        ('user: "a\\0b"', "user", "NUL"),
        ("environment: text", "environment", "must be a list"),
        ("environment: ['=x']", "environment[0]", "without a name"),
        ("environment: {'A=B': x}", "environment.A=B", "'=' in it"),
        ("env_file: none.env", "env_file", "cannot be read"),
        ("env_file: [{path: x, required: false, format: raw}]", "env_file[0].format", "Compose's own rules"),
        ("labels: {gary.slot: x}", "labels.gary.slot", "Gary's own"),
        ("ports: 80", "ports", "must be a list"),
        ("ports: ['80/icmp']", "ports[0]", "tcp, udp, sctp"),
        ("ports: ['8000-9000:80']", "ports[0]", "equal length"),
        ("ports: ['9-1']", "ports[0]", "lower one first"),
        ("ports: ['1-65535']", "ports[0]", "at most"),
        ("ports: ['300.1.1.1:80:80']", "ports[0]", "address of the host"),
        ("ports: ['80:80', '80:81']", "ports[1]", "a second time"),
        ("ports: [{published: 80}]", "ports[0]", "no target"),
        ("ports: [{target: 80, mode: ingress}]", "ports[0].mode", "no routing mesh"),
        ("ports: [{target: 80, app_protocol: http}]", "ports[0].app_protocol", "traffic"),
        ("network_mode: none\nports: [80]", "ports", "network_mode: none"),
        ("network_mode: host\nports: ['81:80']", "ports", "network_mode: host"),
        ("network_mode: service:db", "network_mode", "bridge, host, none"),
        ("volumes: [nowhere:/x]", "volumes[0]", "does not declare"),
        ("volumes: [data:x]", "volumes[0]", "absolute path"),
        ("volumes: [data:/x:z]", "volumes[0]", "only ro and rw"),
        ("volumes: ['a:/b:ro:d']", "volumes[0]", "[SOURCE:]TARGET[:ro|rw]"),
        ("volumes: [':/x']", "volumes[0]", "no source"),
        ("volumes: ['~bob/x:/x']", "volumes[0]", "own"),
        ("volumes: [data:/x, /tmp:/x]", "volumes[1]", "a second time"),
        ("volumes: [{type: npipe, target: /x}]", "volumes[0].type", "bind, volume, tmpfs"),
        ("volumes: [{type: bind, target: /x}]", "volumes[0]", "no source"),
        ("volumes: [{type: tmpfs, source: data, target: /x}]", "volumes[0].source", "type tmpfs"),
        ("volumes: [{type: volume, target: /x, volume: {nocopy: true}}]", "volumes[0].volume", "mounted whole"),
        (
            "volumes: [{type: bind, source: /a, target: /x, bind: {create_host_path: true}}]",
            "volumes[0].bind.create_host_path",
            "makes no directories",
        ),
        ("working_dir: relative", "working_dir", "absolute path"),
        ("healthcheck: {test: [curl]}", "healthcheck.test", "CMD, CMD-SHELL or NONE"),
        ("healthcheck: {test: [CMD-SHELL, a, b]}", "healthcheck.test", "2 words"),
        ("healthcheck: {test: [CMD]}", "healthcheck.test", "0 words"),
        ("healthcheck: {interval: 5}", "healthcheck.interval", "with its unit"),
        ("healthcheck: {retries: 0}", "healthcheck.retries", "from 1"),
        ("healthcheck: {disable: true, test: x}", "healthcheck.disable", "with a test"),
        ("stop_grace_period: soon", "stop_grace_period", "duration"),
        ("stop_grace_period: 99999h", "stop_grace_period", "at most 366 days"),
        ("stop_signal: SIGNAL", "stop_signal", "no signal"),
        ("restart: sometimes", "restart", "on-failure:N"),
        ("restart: always:3", "restart", "on-failure:N"),
        ("restart: on-failure:x", "restart", "whole number"),
        ("restart: no\ndeploy: {restart_policy: {condition: any}}", "restart", "differs"),
        ("init: maybe", "init", "true or false"),
        ("cap_add: [net admin]", "cap_add[0]", "capability"),
        ("cpus: -1", "cpus", "number of CPUs"),
        ("cpus: 1\ndeploy: {resources: {limits: {cpus: 2}}}", "cpus", "differs"),
        ("mem_limit: much", "mem_limit", "size"),
        ("mem_limit: 5000p", "mem_limit", "more than any machine"),
        ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "mem_limit", "differs"),
        (
            "deploy: {resources: {limits: {memory: 1g}, reservations: {memory: 2g}}}",
            "deploy.resources.reservations.memory",
            "more than the limit",
        ),
        ("deploy: {replicas: 10001}", "deploy.replicas", "from 0 to 10000"),
        ("deploy: {replicas: 1.5}", "deploy.replicas", "whole number"),
        ("deploy: {mode: global, replicas: 2}", "deploy.replicas", "mode: global"),
        ("deploy: {mode: replicated-job}", "deploy.mode", "jobs are not supported yet"),
        ("deploy: {rollback_config: {}}", "deploy.rollback_config", "not supported yet"),
        ("deploy: {update_config: {failure_action: rollback}}", "deploy.update_config.failure_action", "yet"),
        ("deploy: {placement: {constraints: [node.role==manager]}}", "deploy.placement.constraints[0]", "node.role"),
        ("deploy: {placement: {constraints: [huh]}}", "deploy.placement.constraints[0]", "ATTRIBUTE"),
        ("deploy: {placement: {preferences: [{spread: x}]}}", "deploy.placement.preferences", "spread over all"),
        ("deploy: [a]", "deploy", "must be a mapping"),
        ("x-gary: {resilience: 3}", "x-gary.resilience", "whole application"),
        ("x-gary: {x-more: 1}", "x-gary.x-more", "not a key"),
        ("x-gary: {runtime: podman}", "x-gary.runtime", "docker, process, any"),
        ("x-gary: {partition: split}", "x-gary.partition", "heal, hold"),
        ("user: ${UNCLOSED", "user", "without its"),
        ("image: twice", "image", "given twice; the first time on line 3"),
        ("<<: [text]", "<<", "merge mappings"),
    ],
)
def test_a_wrong_value_is_refused_where_it_stands(lines: str, key: str, reason: str) -> None:
    ((_, found_key, found_reason),) = errors_in_service(lines)
    assert found_key == key
    assert reason in found_reason


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ("x-gary: {runtime: process}", ["services.web"]),
        (
            "x-gary: {runtime: any}\ncommand: x\ncap_add: [ALL]\nread_only: true\ninit: true\nvolumes: [data:/x]",
            ["cap_add", "read_only", "init", "volumes"],
        ),
        ("x-gary: {runtime: process}\ncommand: x\nnetwork_mode: bridge", ["network_mode"]),
        ("x-gary: {runtime: process}\ncommand: x\nports: [80]", ["ports"]),
        ("x-gary: {runtime: process}\ncommand: x\nports: ['80:80/sctp']", ["ports"]),
        (
            "x-gary: {runtime: process}\ncommand: x\ncpus: 1\ndeploy: {resources: {limits: {pids: 5}}}",
            ["cpus", "deploy.resources.limits"],
        ),
        ("x-gary: {runtime: process}\ncommand: x\nenvironment: {a.b: c}", ["environment"]),
    ],
)
def test_what_only_a_container_can_have_is_refused_for_a_process(lines: str, keys: list[str]) -> None:
    assert [key for _, key, _ in errors_in_service(lines)] == keys


def test_a_process_needs_no_image_and_has_its_own_ports() -> None:
    text = (
        "services: {web: {x-gary: {runtime: process}, command: serve, ports: ['8080:8080'], network_mode: host, "
        "deploy: {resources: {reservations: {cpus: 0.5}}}}}"
    )
    (service,) = load(HERE, {}, text=text).services
    assert service.image == ""
    assert [port.host for port in service.fixed_ports] == [8080]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "is empty"),
        ("# only a comment", 1, "is empty"),
        ("text", 1, "must be a mapping"),
        ("- list", 1, "must be a mapping"),
        ("name: x", 1, "no services"),
        ("services:", 1, "has no value"),
        ("services: {}", 1, "no service"),
        ("services: {x-a: {}}", 1, "no service"),
        ("services:\n  web:\n   image: x\n  - a", 4, "is not YAML"),
        ("services:\n\tweb: x", 2, "is not YAML"),
        ("services: {web: {image: x}", 1, "is not YAML"),
        ("services: {web: *nowhere}", 1, "no anchor"),
        ("services: &a {web: *a}", 1, "inside of what it refers to"),
        ("services: {web: !own {image: x}}", 1, "tag"),
        ("services: {web: {image: x}}\n---\nservices: {}", 2, "second document"),
        ("services: {web: {image: x}}\nx-a:\n  ? [a]\n  : b", 3, "a key must be a text"),
        ("services: {web: {image: \x07}}", 1, "is not YAML"),
        (b"services:\n  web:\n    image: \xff", 3, "not UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00\x00", 1, "is not YAML"),
        (b"a" * (1 << 21), 0, "larger than"),
        ("[" * 100_000, 1, "nested more than"),
        ("services: " + "{a: " * 1000, 1, "nested more than"),
        ("- " * 5000, 1, "nested more than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_compose_file_gets_one_clean_error(text: str | bytes, line: int, reason: str) -> None:
    (error,) = errors_of(text)
    assert reason in error.reason
    assert error.line == line


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (error,) = errors_of("\n".join(lines))
    assert "too large" in error.reason


def test_a_bomb_of_merge_keys_is_refused() -> None:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    assert "too large" in errors_of("\n".join(lines))[0].reason


def test_a_file_that_is_too_large_once_variables_are_replaced_is_refused() -> None:
    text = "services: {web: {image: x, command: [" + ", ".join(["$BIG"] * 200) + "]}}"
    with pytest.raises(ComposeErrors, match="too large"):
        load(HERE, {"BIG": "x" * 100_000}, text=text)


def test_limits_that_only_the_whole_spec_shows_are_told_at_the_service() -> None:
    variables = "".join(f"\n      V{i}: x" for i in range(5000))
    (error,) = errors_of(f"services:\n  web:\n    image: x\n    environment:{variables}")
    assert (error.line, error.key) == (2, "services.web.environment")
    assert "at most 4096" in error.reason


def test_a_missing_file_and_a_directory_are_clean_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ComposeErrors, match="cannot be read"):
            load(path, {})


def test_a_name_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComposeErrors, match="--name"):
        load(HERE, {}, text="services: {web: {image: x}}", name="No Name")
    with pytest.raises(ComposeErrors, match="cannot give one"):
        load(tmp_path / "..." / "x.yaml", {}, text="services: {web: {image: x}}")


def test_a_bad_dotenv_file_is_told_with_its_own_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnot a variable\n")
    with pytest.raises(ComposeErrors) as raised:
        load(tmp_path / "app.yaml", {}, text="services: {web: {image: x}}")
    (error,) = raised.value.errors
    assert (error.file, error.line) == (str(tmp_path / ".env"), 2)


SCOPES = {TOP: "{key}: x\nservices: {{web: {{image: x}}}}", SERVICE: "services:\n web:\n  image: x\n  {key}: x", DEPLOY: "services:\n web:\n  image: x\n  deploy: {{{key}: x}}"}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(
    ("scope", "key"),
    [(scope, key) for scope in SCOPES for key, rule in KEYS[scope].items() if isinstance(rule, Refused)],
)
def test_every_refused_key_is_refused_by_name_with_a_way_out(scope: str, key: str) -> None:
    (error,) = errors_of(SCOPES[scope].format(key=key))
    assert error.key.rpartition(".")[2] == key
    assert error.line >= 1
    assert error.reason
    assert error.hint


def test_each_honoured_key_of_a_service_is_read_and_nothing_else() -> None:
    text = "services:\n web:\n  image: x\n  {key}: {{unknown: [x]}}"
    for key, rule in KEYS[SERVICE].items():
        if not isinstance(rule, Refused) and key not in ("image", "environment", "labels"):
            assert any(error.key.startswith(f"services.web.{key}") for error in errors_of(text.format(key=key))), key


def test_the_reference_is_what_the_table_says() -> None:
    assert REFERENCE.read_text() == reference(), "run: python -m gary.compose reference > docs/reference/compose.md"


def test_a_spec_needs_neither_yaml_nor_this_package() -> None:
    code = "import sys, gary.spec; sys.exit(any(name in sys.modules for name in ('yaml', 'gary.compose', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=REFERENCE.parents[2]).returncode == 0


def spec_or_errors(text: str | bytes) -> None:
    try:
        spec = load(HERE, {"SET": "x"}, text=text)
    except ComposeErrors as errors:
        assert errors.errors  # noqa: PT017
        assert all(error.reason for error in errors.errors)  # noqa: PT017
    else:
        assert isinstance(spec, Spec)
        assert from_json(to_json(spec)) == spec


@given(st.binary(max_size=100))
def test_any_bytes_give_a_spec_or_errors(data: bytes) -> None:
    spec_or_errors(data)


VALUES = st.recursive(
    st.sampled_from(["", "x", "1", "-1", "$SET", "${", "80:80", "1m", "true", "~", "null", "/a:/b", "a=b", "'q'"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(
            st.sampled_from(sorted({key for rules in KEYS.values() for key in rules})), inner, max_size=3
        ).map(lambda table: "{" + ", ".join(f"{key}: {value}" for key, value in table.items()) + "}")
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(KEYS[SERVICE])), VALUES, max_size=4))
def test_any_values_under_the_keys_of_a_service_give_a_spec_or_errors(values: dict[str, str]) -> None:
    lines = "".join(f"\n    {key}: {value}" for key, value in values.items() if key != "image")
    spec_or_errors(f"services:\n  web:\n    image: x{lines}\n")


@given(st.dictionaries(st.sampled_from(sorted(KEYS[TOP])), VALUES, max_size=4))
def test_any_values_under_the_keys_of_a_file_give_a_spec_or_errors(values: dict[str, str]) -> None:
    spec_or_errors("\n".join(f"{key}: {value}" for key, value in values.items()))


GOOD = """\
x-common: &common {environment: {A: 1}, restart: on-failure:3}
services:
  web:
    <<: *common
    image: nginx:${TAG:-1}
    command: sh -c 'echo $$A'
    ports: ["8080:80", {target: 81, mode: host}]
    volumes: [data:/data, ./x:/y:ro, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    healthcheck: {test: [CMD, x], interval: 1m30s}
    deploy: {replicas: 3, resources: {limits: {cpus: 0.5, memory: 1g}}}
volumes: {data: }
"""
PIECES = st.sampled_from(
    ["", "~", "{", "[", ": ", "- ", "*common ", "&x ", "${", "$", "'", '"', "\n  ", "\t", "null", "-1"]
)


@given(st.integers(0, len(GOOD)), st.integers(0, 8), PIECES | st.text(max_size=3))
def test_a_file_with_a_piece_torn_out_or_put_in_gives_a_spec_or_errors(at: int, length: int, piece: str) -> None:
    spec_or_errors(GOOD[:at] + piece + GOOD[at + length :])
