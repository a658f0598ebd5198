"""PyPI mcp 1.x against one endpoint; see ../README.md. Speaks legacy revisions only."""

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from steps import Sdk, checked, main


class Mcp1(Sdk):
    types = types

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress)
        return checked(result, result.isError)

    async def cancelled(self, call):
        # This SDK leaves the notice to the application; ids count up and this call was the last request.
        params = types.CancelledNotificationParams(requestId=self.client._request_id - 1, reason="not wanted any more")
        await self.client.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        await super().cancelled(call)


async def run(options, steps):
    async with (
        streamablehttp_client(options.url, headers=options.headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        initialized = await session.initialize()
        steps.verdicts |= {"initialize": "ok", "protocol": initialized.protocolVersion}
        await steps.all(options, Mcp1(session))


main(run)
