"""What Compose files mean: each key that is honoured, in each of its syntaxes, and files that mean the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

import gary
from gary.compose import ComposeError, default_name, load
from gary.spec import (
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
    encode,
)

HERE = Path("/srv/app/compose.yaml")
ENVIRONMENT = {"TAG": "1.27", "COUNT": "4", "INHERITED": "from outside", "HOME": "/root"}
VOLUMES = "volumes:\n  data:\n  old: {external: true}\n  named: {name: its-name, driver: local}\n"


def spec_of(text: str, **options: Any) -> Spec:
    return load(HERE, ENVIRONMENT, text=dedent(text), **options)


def service_of(lines: str) -> Service:
    (service,) = spec_of(f"services:\n  web:\n    image: nginx\n{indent(dedent(lines), '    ')}\n{VOLUMES}").services
    return service


PLAIN = Service("web", image="nginx")


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        ("", {}),
        ("command: sh -c 'echo \"a b\" c'", {"command": ("sh", "-c", 'echo "a b" c')}),
        ("command: [serve, --port, 80]", {"command": ("serve", "--port", "80")}),
        ("command: ''", {"command": ()}),
        ("command: null", {}),
        ("entrypoint: []", {"entrypoint": ()}),
        ("environment: {A: 1.10, B: yes, C: ''}", {"environment": (("A", "1.10"), ("B", "yes"), ("C", ""))}),
        ("environment: [A=b=c, INHERITED, MISSING]", {"environment": (("A", "b=c"), ("INHERITED", "from outside"))}),
        ("environment: {INHERITED: , MISSING: }", {"environment": (("INHERITED", "from outside"),)}),
        ("labels: {team: blue}", {"labels": (("team", "blue"),)}),
        ("labels: [team=blue, flag]", {"labels": (("flag", ""), ("team", "blue"))}),
        ("ports: ['80']", {"ports": (Port(80),)}),
        ("ports: [80]", {"ports": (Port(80),)}),
        ("ports: [22:22]", {"ports": (Port(22, host=22),)}),
        ("ports: ['8080:80/udp']", {"ports": (Port(80, "udp", 8080),)}),
        ("ports: ['127.0.0.1:8080:80']", {"ports": (Port(80, host=8080, host_ip="127.0.0.1"),)}),
        ("ports: ['127.0.0.1::80']", {"ports": (Port(80, host_ip="127.0.0.1"),)}),
        ("ports: ['[::1]:8080:80']", {"ports": (Port(80, host=8080, host_ip="::1"),)}),
        ("ports: ['8000-8001:80-81']", {"ports": (Port(80, host=8000), Port(81, host=8001))}),
        ("ports: ['3000-3001']", {"ports": (Port(3000), Port(3001))}),
        ("ports: [{target: 80}]", {"ports": (Port(80),)}),
        (
            "ports: [{target: 80, published: '8080', host_ip: 10.0.0.1, protocol: tcp, mode: host}]",
            {"ports": (Port(80, host=8080, host_ip="10.0.0.1"),)},
        ),
        ("expose: [9000, '53/udp', 7000-7001]", {"expose": (Port(53, "udp"), Port(7000), Port(7001), Port(9000))}),
        (
            "volumes: [./conf:/etc/conf:ro]",
            {
                "mounts": (Mount(MountType.BIND, "/srv/app/conf", "/etc/conf", read_only=True),),
                "partition": Partition.HOLD,
            },
        ),
        (
            "volumes: ['./~name:/b']",
            {"mounts": (Mount(MountType.BIND, "/srv/app/~name", "/b"),), "partition": Partition.HOLD},
        ),
        (
            "volumes: ['/a/../b:/b']",
            {"mounts": (Mount(MountType.BIND, "/b", "/b"),), "partition": Partition.HOLD},
        ),
        (
            "volumes: [data:/data, old:/old:rw, named:/named]",
            {
                "mounts": (
                    Mount(MountType.VOLUME, "data", "/data"),
                    Mount(MountType.VOLUME, "old", "/old", external_name="old"),
                    Mount(MountType.VOLUME, "named", "/named", external_name="its-name"),
                ),
                "partition": Partition.HOLD,
            },
        ),
        ("volumes: [/anonymous]", {"mounts": (Mount(MountType.VOLUME, "", "/anonymous"),)}),
        (
            "volumes: [{type: tmpfs, target: /tmp, tmpfs: {size: 64m}}]",
            {"mounts": (Mount(MountType.TMPFS, "", "/tmp", size_bytes=64 << 20),)},
        ),
        (
            "volumes: [{type: bind, source: ../x, target: /x, read_only: true, bind: {create_host_path: false}}]",
            {"mounts": (Mount(MountType.BIND, "/srv/x", "/x", read_only=True),), "partition": Partition.HOLD},
        ),
        (
            "volumes: [{type: volume, source: data, target: /x}]\nx-gary: {partition: heal}",
            {"mounts": (Mount(MountType.VOLUME, "data", "/x"),)},
        ),
        ("x-gary: {partition: hold}", {"partition": Partition.HOLD}),
        ("x-gary: {runtime: any}\ncommand: serve", {"runtime": RuntimeName.ANY, "command": ("serve",)}),
        ("network_mode: none", {"network_mode": "none"}),
        ("network_mode: host\nports: [80]", {"network_mode": "host", "ports": (Port(80, host=80),)}),
        ("user: 1000:1000\nworking_dir: /srv", {"user": "1000:1000", "working_dir": "/srv"}),
        ("user: 1000", {"user": "1000"}),
        ("healthcheck: {test: curl -f localhost}", {"healthcheck": Healthcheck(("CMD-SHELL", "curl -f localhost"))}),
        (
            "healthcheck: {test: [CMD, x], interval: 1m30s, timeout: 500ms, retries: 5, start_period: 2s, "
            "start_interval: 1s}",
            {"healthcheck": Healthcheck(("CMD", "x"), 90.0, 0.5, 5, 2.0, 1.0)},
        ),
        ("healthcheck: {disable: true}", {"healthcheck": Healthcheck(("NONE",))}),
        ("healthcheck: {test: [NONE], interval: 5s}", {"healthcheck": Healthcheck(("NONE",))}),
        ("healthcheck: {interval: 5s}", {"healthcheck": Healthcheck(interval_s=5.0)}),
        ("restart: no", {"restart": RestartPolicy(RestartCondition.NONE)}),
        ("restart: unless-stopped", {}),
        ("restart: on-failure:3", {"restart": RestartPolicy(RestartCondition.ON_FAILURE, attempts_max=3)}),
        (
            "deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}}",
            {"restart": RestartPolicy(RestartCondition.ON_FAILURE, 5.0, 3, 120.0)},
        ),
        (
            "restart: always\ndeploy: {restart_policy: {condition: any, delay: 5s}}",
            {"restart": RestartPolicy(delay_s=5.0)},
        ),
        ("stop_grace_period: 1m\nstop_signal: INT", {"stop_grace_period_s": 60.0, "stop_signal": "SIGINT"}),
        ("stop_signal: SIGRTMIN+3", {"stop_signal": "SIGRTMIN+3"}),
        ("init: true\nread_only: 'yes'", {"init": True, "read_only": True}),
        ("cap_add: [net_admin, CAP_SYS_TIME]", {"cap_add": ("NET_ADMIN", "SYS_TIME")}),
        ("cap_drop: [ALL]", {"cap_drop": ("ALL",)}),
        ("cpus: 0.5\nmem_limit: 1.5g", {"resources": Resources(limit_cpus=0.5, limit_memory_bytes=3 << 29)}),
        (
            "deploy:\n  resources:\n    limits: {cpus: '2', memory: 512M, pids: 100}\n"
            "    reservations: {cpus: 0.25, memory: 64m}",
            {"resources": Resources(2.0, 512 << 20, 100, 0.25, 64 << 20)},
        ),
        (
            "mem_limit: 512m\ndeploy: {resources: {limits: {memory: 0.5gb}}}",
            {"resources": Resources(limit_memory_bytes=1 << 29)},
        ),
        ("deploy: {replicas: '3'}", {"replicas": 3}),
        ("deploy: {replicas: $COUNT}", {"replicas": 4}),
        ("deploy: {mode: global}", {"mode": Mode.GLOBAL}),
        (
            "deploy:\n  placement:\n    constraints: [node.labels.disk==ssd, 'node.hostname != old']\n"
            "    max_replicas_per_node: 2",
            {
                "constraints": (
                    Constraint("node.hostname", False, "old"),
                    Constraint("node.labels.disk", True, "ssd"),
                ),
                "replicas_per_node_max": 2,
            },
        ),
        ("deploy: {update_config: {parallelism: 0}}", {"update_parallelism": 0}),
        ("x-own: {anything: [goes]}\ndeploy: {x-more: 1}", {}),
    ],
)  # fmt: skip
def test_a_key_means_what_compose_says(lines: str, fields: dict[str, Any]) -> None:
    expected = replace(PLAIN, **fields)
    read = service_of(lines)
    assert replace(read, ports=expected.ports, expose=expected.expose) == expected
    assert set(read.ports) == set(expected.ports)
    assert set(read.expose) == set(expected.expose)


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27-alpine",
        "localhost:5000/a/b_c/d--e:T.ag",
        "ghcr.io/org/app@sha256:" + "0" * 64,
        "host.example/x:tag@sha256:" + "a" * 64,
        "[::1]:5000/x",
    ],
)
def test_names_of_images(image: str) -> None:
    (service,) = spec_of(f"services: {{web: {{image: '{image}'}}}}").services
    assert service.image == image


def test_variables_come_from_the_environment_first_and_the_dotenv_file_next(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=from-file\nOTHER='own value'\n")
    file = tmp_path / "app.yaml"
    file.write_text("services: {web: {image: 'x:$TAG', command: ['$OTHER'], environment: [OTHER]}}\n")
    (service,) = load(file, {"TAG": "from-environment"}).services
    assert service.image == "x:from-environment"
    assert service.command == ("own value",)
    assert service.environment == (("OTHER", "own value"),)
    (service,) = load(file, {}).services
    assert service.image == "x:from-file"


def test_other_files_of_variables_take_the_place_of_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=unused\n")
    (tmp_path / "production").write_text("TAG=2\n")
    (service,) = load(HERE, {}, text="services: {web: {image: 'x:$TAG'}}", env_files=[tmp_path / "production"]).services
    assert service.image == "x:2"


def test_files_of_a_services_variables_are_read_beside_the_compose_file(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=${OUTSIDE}\n")
    (tmp_path / "b.env").write_text("B=2\nC=3\n")
    file = tmp_path / "app.yaml"
    file.write_text(
        "services: {web: {image: x, env_file: [a.env, {path: b.env}, {path: none.env, required: false}], "
        "environment: {C: own}}}"
    )
    (service,) = load(file, {"OUTSIDE": "x"}).services
    assert service.environment == (("A", "1"), ("B", "2"), ("C", "own"))
    file.write_text("services: {web: {image: x, env_file: a.env}}")
    (service,) = load(file, {"OUTSIDE": "x"}).services
    assert service.environment == (("A", "1"), ("B", "x"))


def test_a_home_is_the_callers() -> None:
    (service,) = spec_of("services: {web: {image: x, volumes: ['~/data:/data']}}").services
    assert service.mounts[0].source == str(Path("~/data").expanduser())


@pytest.mark.parametrize(
    ("directory", "name"),
    [("/srv/app", "app"), ("/srv/My App.2", "myapp2"), ("/srv/_-x", "x"), ("/srv/...", ""), ("/", "")],
)
def test_the_name_of_the_directory_becomes_the_applications(directory: str, name: str) -> None:
    assert default_name(Path(directory)) == name


def test_names_in_order_of_weight() -> None:
    assert spec_of("services: {web: {image: x}}").name == "app"
    assert spec_of("name: own-${TAG-}x\nservices: {web: {image: x}}".replace("${TAG-}", "")).name == "own-x"
    assert spec_of("name: own\nservices: {web: {image: x}}", name="given").name == "given"


def test_resilience_and_warnings() -> None:
    warnings: list[ComposeError] = []
    spec = spec_of(
        "version: '3'\nx-gary: {resilience: 5}\nservices: {web: {image: 'x$NOT', command: '$NOT'}}",
        warn=warnings.append,
    )
    assert spec.resilience == 5
    assert [(warning.line, warning.key) for warning in warnings] == [(3, "services.web.image"), (1, "version")]


def test_files_that_mean_the_same_are_the_same() -> None:
    short = """
        name: app
        services:
          b: {image: redis}
          web:
            image: nginx:1.27
            command: run --fast
            environment: [B=2, A=1]
            ports: ["8080:80", "9090:90"]
            restart: always
            mem_limit: 512m
            volumes: [data:/data]
            stop_grace_period: 90s
        volumes: {data: }
    """
    long = """
        x-common: &common
          environment: {A: 1}
          stop_grace_period: 1m30s
        services:
          web:
            <<: *common
            volumes: [{type: volume, source: data, target: /data}]
            deploy:
              restart_policy: {condition: any}
              resources: {limits: {memory: 0.5g}}
              replicas: 1
            ports:
              - {target: 90, published: 9090, mode: host}
              - {target: 80, published: 8080, protocol: tcp}
            environment:
              A: "1"
              B: ${UNSET:-2}
            entrypoint: null
            command: [run, --fast]
            image: nginx:$TAG
          b: {image: "redis"}
        volumes: {data: {driver: local}}
        name: app
    """
    assert spec_of(short) == spec_of(long)
    assert encode(spec_of(short)) == encode(spec_of(long))


def test_merge_keys_yield_to_own_keys_and_earlier_ones_win() -> None:
    text = """
        services:
          a: &a {image: one, user: a}
          b: &b {image: two, user: b, init: true}
          c: {<<: [*a, *b], image: three}
    """
    service = spec_of(text).service("c")
    assert service == Service("c", image="three", user="a", init=True)


@pytest.mark.parametrize(("file", "runtime"), [("demo.yaml", "docker"), ("demo-process.yaml", "process")])
def test_the_samples_have_eight_replicas_in_two_services(file: str, runtime: str) -> None:
    spec = load(Path(gary.__file__).parent / "samples" / file, {})
    assert {(service.name, service.replicas, str(service.runtime)) for service in spec.services} == {
        ("web", 5, runtime),
        ("worker", 3, runtime),
    }
