"""A real search server on a loopback port: Debian's `searx`, the ancestor of SearXNG with the same JSON API."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.support.services import Service

_PACKAGE = Path("/usr/lib/python3/dist-packages/searx/webapp.py")
_SHARE = Path("/usr/share/python3-searx")
HOW_TO_INSTALL = "searx is not installed: apt-get install -y --no-install-recommends searx"


class Searx(Service):
    """Searx with engines that read JSON, `{"documents": [{"url", "title", "summary"}]}`, by name and address.

    In an address `{query}` is replaced by the query. The package has no default settings, so these are complete.
    """

    def __init__(self, engines: Mapping[str, str]) -> None:
        super().__init__()
        self._settings = self._directory / "settings.yml"
        self._settings.write_text(json.dumps(self._configuration(engines)))  # JSON is YAML

    @staticmethod
    def is_installed() -> bool:
        """Whether this machine has the package."""
        return _PACKAGE.is_file()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._start(["/usr/bin/env", f"SEARX_SETTINGS_PATH={self._settings}", "/usr/bin/python3", "-m", "searx.webapp"])

    def crash(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        self._remove()

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _configuration(self, engines: Mapping[str, str]) -> Mapping[str, object]:
        return {
            "general": {"debug": False, "instance_name": "test", "contact_url": False, "enable_stats": False},
            "brand": dict.fromkeys(
                ("git_url", "git_branch", "issue_url", "docs_url", "public_instances", "wiki_url", "twitter_url"),
                "http://127.0.0.1/",
            ),
            "search": {
                "safe_search": 0,
                "autocomplete": "",
                "default_lang": "",
                "ban_time_on_fail": 0,
                "max_ban_time_on_fail": 0,
            },
            "server": {
                "port": self.port,
                "bind_address": "127.0.0.1",
                "secret_key": "of-a-server-that-lives-for-one-test",
                "base_url": False,
                "image_proxy": False,
                "http_protocol_version": "1.1",
                "method": "GET",
                "default_http_headers": {},
            },
            "ui": {
                "static_path": str(_SHARE / "static"),
                "templates_path": str(_SHARE / "templates"),
                "default_theme": "oscar",
                "default_locale": "",
                "theme_args": {"oscar_style": "logicodev"},
            },
            "outgoing": {"request_timeout": 5.0, "useragent_suffix": "", "pool_connections": 10, "pool_maxsize": 10},
            "doi_resolvers": {"doi.org": "https://doi.org/"},
            "default_doi_resolver": "doi.org",
            "locales": {"en": "English", "zh": "中文"},
            "checker": {"off_when_debug": True},
            "engines": [
                {
                    "name": name,
                    "engine": "json_engine",
                    "shortcut": f"t{i}",
                    "categories": "general",
                    "search_url": address,
                    "results_query": "documents",
                    "url_query": "url",
                    "title_query": "title",
                    "content_query": "summary",
                    "enable_http": True,
                }
                for i, (name, address) in enumerate(engines.items())
            ],
        }
