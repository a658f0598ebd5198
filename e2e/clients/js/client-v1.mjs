// npm @modelcontextprotocol/sdk 1.x against one endpoint; see ../README.md. Speaks legacy revisions only.
import { load, main } from "./steps.mjs";

const { Client } = load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = load("@modelcontextprotocol/sdk/client/streamableHttp.js");

const client = new Client({ name: "client-v1", version: "1" });

await main(
  client,
  async ({ url, headers }) => {
    const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
    await client.connect(transport);
    return transport.protocolVersion;
  },
  (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
);
