"""A managed Jupyter kernel: started, driven, stopped, and never left behind."""

from kernel_agent.kernel.driver import Kernel

__all__ = ["Kernel"]
