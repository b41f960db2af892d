"""Hill-climbing over which demos an agent shows, and in which order."""

from demo_order.demo_order import DemoOrder, DemoOrderOptions

__all__ = ["DemoOrder", "DemoOrderOptions"]
