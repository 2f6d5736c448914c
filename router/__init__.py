"""A fleet of stateless routers: who runs this task for this tenant?"""

__version__ = "0.1.0"
