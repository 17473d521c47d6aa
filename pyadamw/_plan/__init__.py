"""The planner: what the weights, gradients and optimizer state of a model take, and which choice fits into a GPU."""

from .choices import Choice
from .plans import Plan, plan

__all__ = ["Choice", "Plan", "plan"]
