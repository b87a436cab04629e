"""An `mcp` entry of `tools`: what is accepted, what is refused by name, and what the response shows of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.responses.tool import Mcp

from app.protocol.wire.errors import InvalidRequest
from app.settings import Settings
from app.tools.mcp.tool import RemoteServers
from app.tools.ports.tool import ToolRequest


def configure(**fields: Any) -> ToolRequest:
    entry = {
        "type": "mcp",
        "server_label": "shop",
        "server_url": "https://mcp.example.com/tenants/s3cretpath/mcp?key=s3cret",
        **fields,
    }
    return RemoteServers(Settings()).configure(msgspec.Raw(msgspec.json.encode(entry)), "tools[2]")


def echo(**fields: Any) -> dict[str, Any]:
    return msgspec.json.decode(configure(**fields).echo)


def test_the_echo_shows_the_defaults_and_no_secret() -> None:
    shown = echo(headers={"X-Api-Key": "s3cret-key"}, authorization="s3cret-token")
    assert shown == {
        "type": "mcp",
        "server_label": "shop",
        "server_url": "https://mcp.example.com",
        "server_description": None,
        "allowed_tools": None,
        "require_approval": "always",
    }
    assert Mcp.model_validate(shown, strict=True).require_approval == "always"


def test_the_echo_keeps_what_is_no_secret() -> None:
    given = {
        "server_description": "Sells things.",
        "server_protocol": "sse",
        "allowed_tools": {"tool_names": ["list"], "read_only": True},
        "require_approval": {"never": {"read_only": True, "tool_names": None}},
    }
    shown = echo(**given)
    assert shown["server_protocol"] == "sse"
    assert shown["allowed_tools"] == given["allowed_tools"]
    assert shown["require_approval"] == {"always": None, "never": {"tool_names": None, "read_only": True}}


def test_a_credential_is_not_printed_either() -> None:
    request = configure(headers={"X-Api-Key": "s3cret-key"}, authorization="s3cret-token")
    assert "s3cret-key" not in repr(request)
    assert "s3cret-token" not in repr(request)


def test_the_label_tells_entries_apart() -> None:
    assert configure(server_label="a").label == "a"
    assert configure(server_label="高德 地图").label == "高德 地图"


def test_credentials_with_unusual_characters_are_sent_as_they_are() -> None:
    configure(headers={"X-Weird.name": 'a b;c="d" ~'}, authorization="")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"server_label": None}, "server_label"),
        ({"server_label": ""}, "server_label"),
        ({"server_label": "-x"}, "server_label"),
        ({"server_label": "x" * 65}, "server_label"),
        ({"server_label": "a\nb"}, "server_label"),
        ({"server_label": 3}, "server_label"),
        ({"server_url": None}, "server_url"),
        ({"server_url": "mcp.example.com"}, "server_url"),
        ({"server_url": "ftp://example.com"}, "server_url"),
        ({"server_url": "file:///etc/passwd"}, "server_url"),
        ({"server_url": "http://"}, "server_url"),
        ({"server_url": "http://[::1"}, "server_url"),
        ({"server_url": "http://host:99999/"}, "server_url"),
        ({"server_url": "https://user:pass@example.com/"}, "server_url"),
        ({"server_url": "https://example.com/" + "x" * 9000}, "server_url"),
        ({"server_protocol": "stdio"}, "server_protocol"),
        ({"connector_id": "connector_gmail"}, "connector_id"),
        ({"tunnel_id": "t"}, "tunnel_id"),
        ({"defer_loading": True}, "defer_loading"),
        ({"allowed_callers": ["programmatic"]}, "allowed_callers"),
        ({"allowed_tools": "all"}, "allowed_tools"),
        ({"allowed_tools": [1]}, "allowed_tools"),
        ({"allowed_tools": {"names": ["x"]}}, "allowed_tools.names"),
        ({"require_approval": "sometimes"}, "require_approval"),
        ({"require_approval": {}}, "require_approval"),
        ({"require_approval": {"never": {}}}, "require_approval"),
        ({"require_approval": {"always": {"tool_names": ["a"]}, "never": {}}}, "require_approval"),
        ({"headers": {"Host": "other"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers"),
        ({"headers": {"X Y": "a"}}, "headers"),
        ({"headers": {"": "a"}}, "headers"),
        ({"headers": {"X": "ü"}}, "headers"),
        ({"headers": {"X": 1}}, "headers"),
        ({"headers": {"X": "y" * 20_000}}, "headers"),
        ({"headers": {f"X{i}": "y" for i in range(65)}}, "headers"),
        ({"authorization": "a\nb"}, "authorization"),
        ({"authorization": "a", "headers": {"Authorization": "b"}}, "authorization"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        configure(**fields)
    assert refusal.value.param == f"tools[2].{param}"
    assert param in refusal.value.message


def test_what_is_not_served_says_so() -> None:
    with pytest.raises(InvalidRequest, match="'connector_id' is not served"):
        configure(connector_id="connector_gmail", server_url=None)


def test_a_refusal_tells_no_secret() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        configure(headers={"X-Key": "s3cret\n"}, authorization="t0ken")
    assert "s3cret" not in refusal.value.message
    assert refusal.value.__cause__ is None


def test_what_means_nothing_here_is_accepted() -> None:
    configure(connector_id=None, defer_loading=False, allowed_callers=["direct"], headers=None, authorization=None)


@pytest.mark.parametrize("text", ["[]", '"mcp"', '{"type":"mcp","server_label":' + "[" * 100_000, "{"])
def test_json_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        RemoteServers(Settings()).configure(msgspec.Raw(text.encode()), "tools[0]")
    assert (refusal.value.param or "").startswith("tools[0]")
