"""PyPI fastmcp 4.x against one endpoint; see ../README.md."""

import mcp_types
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from steps import Sdk, checked, main


class FastMcp(Sdk):
    types = mcp_types

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool_mcp(name, arguments, progress_handler=on_progress)
        return checked(result, result.is_error)


async def run(options, steps):
    mode = {"modern": "2026-07-28", None: "auto"}.get(options.mode, options.mode)
    transport = StreamableHttpTransport(options.url, headers=options.headers)
    async with Client(transport, mode=mode, cache=False) as client:
        steps.verdicts |= {"initialize": "ok", "protocol": str(client.session.protocol_version)}
        await steps.all(options, FastMcp(client))


main(run)
