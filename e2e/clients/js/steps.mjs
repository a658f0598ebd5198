// What the TypeScript SDK clients share: the command line and the steps. See ../README.md.
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";

// The packages are in the cache, not beside this file.
export const load = createRequire(join(process.env.MCPMESH_CACHE, "npm", "package.json"));

const DEADLINE = 30_000;

export function options() {
  const string = { type: "string" };
  const json = { type: "string", default: "{}" };
  const many = { type: "string", multiple: true, default: [] };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      mode: string,
      header: many,
      call: many, args: many, complete: many,
      read: string,
      prompt: string, "prompt-args": json,
      progress: string, "progress-args": json,
      cancel: string, "cancel-args": json,
    },
  });
  const headers = values.header.map((line) => [line.slice(0, line.indexOf(":")).trim(), line.slice(line.indexOf(":") + 1).trim()]);
  return { ...values, url: new URL(positionals[0]), headers: Object.fromEntries(headers) };
}

// The tool's own errors are results; here they fail the step.
const checked = (result) => {
  if (result.isError) throw new Error(`the tool failed: ${JSON.stringify(result.content)}`);
};

async function complete(client, params) {
  const { values } = (await client.complete(params)).completion;
  if (values.length === 0 || !values.every((value) => value.startsWith(params.argument.value))) {
    throw new Error(`${JSON.stringify(params)}: ${JSON.stringify(values)}`);
  }
}

async function progress(call, tool, args) {
  const seen = [];
  checked(await call(tool, args, { onprogress: ({ progress }) => seen.push(progress) }));
  if (seen.length === 0 || seen.some((step, at) => at > 0 && step <= seen[at - 1])) {
    throw new Error(`progress was ${JSON.stringify(seen)}`);
  }
}

async function cancel(client, call, tool, args) {
  const controller = new AbortController();
  let begin;
  // Some tools report nothing: a second is enough to be on the way.
  const begun = new Promise((resolve) => (begin = resolve, setTimeout(resolve, 1000)));
  const running = call(tool, args, { onprogress: () => begin(), signal: controller.signal });
  const ended = running.then(() => "answered", (error) => `failed: ${error}`);
  const first = await Promise.race([ended, begun]);
  if (first !== undefined) throw new Error(`ended before it could be cancelled: ${first}`);
  controller.abort("not wanted any more");
  const end = await ended;
  if (!end.startsWith("failed")) throw new Error("a cancelled call answered");
  // Past the SDK's cache: the connection must still carry a request, and the notice must be out before the end.
  await client.listTools(undefined, { cacheMode: "refresh" });
}

// `connect` opens the client and returns the negotiated revision; `call(name, args, options)` calls a tool.
export async function main(client, connect, call) {
  const wanted = options();
  const verdicts = {};
  const step = async (name, work) => {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("no end in time")), DEADLINE)));
    try {
      const result = await Promise.race([work(), late]);
      verdicts[name] = "ok";
      return result;
    } catch (error) {
      verdicts[name] = `error: ${error}`.slice(0, 500);
    } finally {
      clearTimeout(timer);
    }
  };
  const protocol = await step("initialize", () => connect(wanted));
  if (verdicts.initialize === "ok") {
    verdicts.protocol = protocol;
    await step("tools", () => client.listTools());
    await step("prompts", () => client.listPrompts());
    await step("resources", () => client.listResources());
    if (wanted.call.length > 0) {
      await step("call", async () => {
        for (const [at, tool] of wanted.call.entries()) checked(await call(tool, JSON.parse(wanted.args[at]), {}));
      });
    }
    if (wanted.read) await step("read", () => client.readResource({ uri: wanted.read }));
    if (wanted.prompt) {
      await step("prompt", () => client.getPrompt({ name: wanted.prompt, arguments: JSON.parse(wanted["prompt-args"]) }));
    }
    if (wanted.complete.length > 0) {
      await step("complete", async () => {
        for (const params of wanted.complete) await complete(client, JSON.parse(params));
      });
    }
    if (wanted.progress) await step("progress", () => progress(call, wanted.progress, JSON.parse(wanted["progress-args"])));
    if (wanted.cancel) await step("cancel", () => cancel(client, call, wanted.cancel, JSON.parse(wanted["cancel-args"])));
  }
  console.log(JSON.stringify(verdicts));
  await client.close().catch(() => {});
  process.exit(Object.values(verdicts).some((verdict) => `${verdict}`.startsWith("error")) ? 1 : 0);
}
