// npm @modelcontextprotocol/client 2.x against one endpoint; see ../README.md.
import { load, main, options } from "./steps.mjs";

const { Client, StreamableHTTPClientTransport } = load("@modelcontextprotocol/client");

const modes = { auto: "auto", legacy: "legacy", modern: { pin: "2026-07-28" } };
const { mode } = options();
const negotiation = mode === undefined ? {} : { versionNegotiation: { mode: modes[mode] } };
const client = new Client({ name: "client-v2", version: "1" }, negotiation);

await main(
  client,
  async ({ url, headers }) => {
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }));
    return client.getNegotiatedProtocolVersion();
  },
  (name, args, options) => client.callTool({ name, arguments: args }, options),
);
