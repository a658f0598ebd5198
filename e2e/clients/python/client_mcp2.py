"""PyPI mcp 2.x against one endpoint; see ../README.md."""

import mcp_types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from steps import Sdk, checked, main


class Mcp2(Sdk):
    types = mcp_types

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress)
        return checked(result, result.is_error)


async def run(options, steps):
    mode = {"modern": "2026-07-28", None: "auto"}.get(options.mode, options.mode)
    http = create_mcp_http_client(headers=options.headers)
    transport = streamable_http_client(options.url, http_client=http)
    async with Client(transport, mode=mode, cache=None) as client:
        steps.verdicts |= {"initialize": "ok", "protocol": client.protocol_version}
        await steps.all(options, Mcp2(client))


main(run)
