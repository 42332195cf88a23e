"""Asking language models for their replies."""

from kernel_agent.model.counting import paid_until as paid_until
from kernel_agent.model.fallbacks import Fallbacks as Fallbacks
from kernel_agent.model.function_model import as_model as as_model
from kernel_agent.model.lite_llm import LiteLLM as LiteLLM
from kernel_agent.model.protocol import JsonTool as JsonTool
from kernel_agent.model.protocol import Model as Model
from kernel_agent.model.protocol import check_media as check_media
from kernel_agent.model.protocol import price as price
from kernel_agent.model.protocol import reply_format as reply_format
from kernel_agent.model.protocol import window as window
