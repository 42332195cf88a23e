"""What the semantic conventions call things: providers, usage, messages, errors."""

from __future__ import annotations

import json
from typing import Any

from kernel_agent.steps import CellResult, Reply, RequestedCall, Usage

PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' names of providers where litellm has others."""


def provider(model: str) -> str:
    """The conventions' name of the provider of a model that is called `provider/model`."""
    prefix, slash, _ = model.partition("/")
    return PROVIDERS.get(prefix, prefix) if slash else "_OTHER"


def usage_facts(usage: Usage) -> dict[str, Any]:
    """The conventions' attributes for `usage`, and the cost in USD where it is known."""
    facts: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    if usage.cached_tokens:
        facts["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        facts["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.cost is not None:
        facts["kernel_agent.cost_usd"] = usage.cost
    return facts


def reply_message(reply: Reply) -> dict[str, Any]:
    """A reply as `gen_ai.output.messages` has it, its native calls too."""
    texts = {"reasoning": reply.reasoning, "text": reply.text}
    parts = [{"type": kind, "content": text} for kind, text in texts.items() if text]
    parts += [_call_part(call) for call in reply.calls]
    return {"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason}


def _call_part(call: RequestedCall) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:  # cut off, or never JSON
        arguments = call.arguments
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}


def raised(result: CellResult) -> tuple[str, str]:
    """The type and the message of what the cell raised."""
    for output in reversed(result.outputs):
        if output["output_type"] == "error":
            return output["ename"] or "_OTHER", output["evalue"]
    return "_OTHER", ""


def json_text(value: Any) -> str:
    """`value` as JSON, where an attribute can only be text."""
    return json.dumps(value, ensure_ascii=False, default=str)
