"""Tools of other libraries as tools of ours; none of them is imported unless it is in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from kernel_agent.errors import SettingsError, ToolError
from kernel_agent.mcp_client.schema_stubs import Stub, identifier, stub_of
from kernel_agent.tools.tool import TIMEOUT, Tool


def adapted(value: Any) -> Tool | None:
    """The tool that `value` of LangChain or smolagents is; None if it is of neither.

    Raises ToolError if its name or its parameters cannot be those of a function.
    """
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}
    if "langchain_core.BaseTool" in kinds:
        return _langchain(value)
    if "smolagents.Tool" in kinds or "smolagents.BaseTool" in kinds:
        return _smolagents(value)
    return None


def space_tool(
    space: Any, *, api_name: str, name: str | None = None, timeout: float = TIMEOUT
) -> Tool:
    """An endpoint of a Gradio app or of a Space of Hugging Face.

    `space` is its URL, `"owner/name"` of a Space, or a `gradio_client.Client`; `api_name` is the
    endpoint's (`"/predict"`), and without its slash the tool's `name` unless that is given.

    Raises SettingsError if `gradio_client` is missing, ToolError if the app cannot be reached or
    has no such endpoint.
    """
    endpoint = f"/{api_name.strip('/')}"
    named = name or identifier(endpoint.strip("/"))
    client = _gradio_client(space, named) if isinstance(space, str) else space
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    if endpoint not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise ToolError(named, f"the app has no endpoint {endpoint!r}. It has: {known}.")
    told = endpoints[endpoint]
    returns = [one["type"] for one in told["returns"]]
    title = getattr(client, "space_id", None) or getattr(client, "src", "")
    description = told.get("description") or f"{endpoint} of the app {title}."
    stub = stub_of(
        named, description, _gradio_schema(told), returns[0] if len(returns) == 1 else None
    )

    def call(arguments: dict[str, Any]) -> Any:
        return client.predict(**arguments, api_name=endpoint)

    return _tool(named, stub, call, timeout=timeout)


def _langchain(value: Any) -> Tool:
    schema = value.tool_call_schema
    # A pydantic model, or a JSON schema where the tool comes from elsewhere (MCP, OpenAPI).
    told = schema if isinstance(schema, Mapping) else schema.model_json_schema()
    name = identifier(value.name)
    stub = stub_of(name, value.description, told)

    def call(arguments: dict[str, Any]) -> Any:
        if getattr(value, "func", True) is None and getattr(value, "coroutine", None):
            return import_module("asyncio").run(value.ainvoke(arguments))
        return value.invoke(arguments)

    return _tool(name, stub, call)


def _smolagents(value: Any) -> Tool:
    properties = {name: _smolagents_type(told) for name, told in value.inputs.items()}
    required = [name for name, told in value.inputs.items() if not told.get("nullable")]
    name = identifier(value.name)
    schema = {"type": "object", "properties": properties, "required": required}
    stub = stub_of(name, value.description, schema, _smolagents_type({"type": value.output_type}))

    # Called as a whole, which sets it up the first time.
    return _tool(name, stub, lambda arguments: value(**arguments))


def _smolagents_type(told: Mapping[str, Any]) -> dict[str, Any]:
    """One of its inputs as a JSON schema: it has types of its own, which have none there."""
    own = ("image", "audio", "any")
    kinds = told["type"] if isinstance(told["type"], list) else [told["type"]]
    return {key: value for key, value in told.items() if key != "type"} | (
        {} if set(kinds) & set(own) else {"type": told["type"]}
    )


def _gradio_client(space: str, name: str) -> Any:
    try:
        gradio_client = import_module("gradio_client")
    except ImportError as error:
        raise SettingsError(
            "Tools of Gradio apps need the package `gradio_client`, which is not installed: "
            "pip install gradio_client."
        ) from error
    try:
        return gradio_client.Client(space, verbose=False)
    # What it raises is a matter of its version and of what it talks to.
    except Exception as error:
        raise ToolError(name, f"the app {space!r} cannot be reached: {error}.") from error


def _gradio_schema(told: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for one in told["parameters"]:
        schema = dict(one["type"]) if isinstance(one.get("type"), Mapping) else {}
        schema.setdefault("description", one.get("label") or "")
        if one.get("parameter_has_default"):
            schema["default"] = one.get("parameter_default")
        properties[one["parameter_name"]] = schema
    required = [
        one["parameter_name"] for one in told["parameters"] if not one.get("parameter_has_default")
    ]
    return {"type": "object", "properties": properties, "required": required}


def _tool(
    name: str, stub: Stub, run: Callable[[dict[str, Any]], Any], *, timeout: float = TIMEOUT
) -> Tool:
    if stub.problem:
        raise ToolError(name, f"its parameters cannot be read: {stub.problem}.")

    def call(*args: Any, **kwargs: Any) -> Any:
        return run(stub.arguments(args, kwargs))

    call.__name__ = name
    return Tool(name, stub.source, call, timeout=timeout)
