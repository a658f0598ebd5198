"""What the Python clients share: the command line and the steps. See ../README.md."""

import argparse
import asyncio
import contextlib
import json
import sys

DEADLINE = 30


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--mode", choices=["auto", "legacy", "modern"])
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--read")
    parser.add_argument("--call", action="append", default=[])
    parser.add_argument("--args", action="append", type=json.loads, default=[])
    parser.add_argument("--complete", action="append", type=json.loads, default=[])
    for name in ("prompt", "progress", "cancel"):
        parser.add_argument(f"--{name}")
        parser.add_argument(f"--{name}-args", type=json.loads, default={})
    options = parser.parse_args()
    options.headers = {name.strip(): value.strip() for name, _, value in (h.partition(":") for h in options.header)}
    return options


class Sdk:
    """What the SDKs' clients have in common; a client file says how its SDK calls a tool."""

    def __init__(self, client):
        self.client = client

    async def tools(self):
        return await self.client.list_tools()

    async def prompts(self):
        return await self.client.list_prompts()

    async def resources(self):
        return await self.client.list_resources()

    async def call(self, name, arguments, on_progress=None):
        raise NotImplementedError

    async def read(self, uri):
        return await self.client.read_resource(uri)

    async def prompt(self, name, arguments):
        return await self.client.get_prompt(name, arguments)

    async def complete(self, ref, argument, context):
        result = await self.client.complete(self.reference(**ref), argument, context)
        return getattr(result, "completion", result).values

    def reference(self, type, **place):
        """A prompt or a resource template, as the SDK names it."""
        names = {"ref/prompt": "PromptReference", "ref/resource": "ResourceTemplateReference"}
        return getattr(self.types, names[type])(type=type, **place)

    async def cancelled(self, call):
        """Gives up a running call."""
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


class Steps:
    """The verdicts so far; a failed step does not stop the others."""

    def __init__(self):
        self.verdicts = {}

    async def step(self, name, work):
        try:
            async with asyncio.timeout(DEADLINE):
                result = await work
            self.verdicts[name] = "ok"
            return result
        except BaseException as error:  # noqa: BLE001: groups of exceptions and cancellations are verdicts too
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.verdicts[name] = f"error: {type(error).__name__}: {error}"[:500]

    async def all(self, options, client):
        await self.step("tools", client.tools())
        await self.step("prompts", client.prompts())
        await self.step("resources", client.resources())
        if options.call:
            await self.step("call", self.calls(client, zip(options.call, options.args, strict=True)))
        if options.read:
            await self.step("read", client.read(options.read))
        if options.prompt:
            await self.step("prompt", client.prompt(options.prompt, options.prompt_args))
        if options.complete:
            await self.step("complete", self.completions(client, options.complete))
        if options.progress:
            await self.step("progress", self.progress(client, options.progress, options.progress_args))
        if options.cancel:
            await self.step("cancel", self.cancel(client, options.cancel, options.cancel_args))

    @staticmethod
    async def calls(client, wanted):
        for tool, arguments in wanted:
            try:
                await client.call(tool, arguments)
            except Exception as error:
                raise ValueError(f"{tool}: {error}") from error

    @staticmethod
    async def completions(client, wanted):
        for one in wanted:
            argument = one["argument"]
            context = one.get("context", {}).get("arguments")
            values = await client.complete(one["ref"], argument, context)
            if not values or not all(value.startswith(argument["value"]) for value in values):
                raise ValueError(f"{one}: {values}")

    @staticmethod
    async def progress(client, tool, arguments):
        seen = []

        async def on_progress(progress, total, message):
            seen.append(progress)

        await client.call(tool, arguments, on_progress)
        if not seen or seen != sorted(set(seen)):
            raise ValueError(f"progress was {seen}")

    @staticmethod
    async def cancel(client, tool, arguments):
        begun = asyncio.Event()

        async def on_progress(progress, total, message):
            begun.set()

        call = asyncio.create_task(client.call(tool, arguments, on_progress))
        # Some tools report nothing: a second is enough to be on the way.
        waiting = asyncio.create_task(begun.wait())
        await asyncio.wait({call, waiting}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if call.done():
            raise ValueError(f"ended before it could be cancelled: {call}")
        await client.cancelled(call)
        await client.tools()


def main(run):
    """Runs `run(options, steps)` and prints the verdicts."""
    options, steps = parse(), Steps()

    async def guarded():
        await run(options, steps)

    try:
        asyncio.run(guarded())
    except BaseException as error:  # noqa: BLE001
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        steps.verdicts.setdefault("initialize", f"error: {type(error).__name__}: {error}"[:500])
        if steps.verdicts["initialize"] == "ok":
            steps.verdicts["close"] = f"error: {type(error).__name__}: {error}"[:500]
    print(json.dumps(steps.verdicts))
    sys.exit(any(str(verdict).startswith("error") for verdict in steps.verdicts.values()))


def checked(result, is_error):
    """The result of a call, if the tool did not report an error of its own."""
    if is_error:
        raise ValueError(f"the tool failed: {result.content}")
    return result
