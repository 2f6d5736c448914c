"""The interfaces that use cases require and adapters implement.

A docstring here is the promise that every implementation keeps. A method that changes shared state does so in one
atomic operation, unless its docstring states otherwise; a method that takes a sequence is atomic for each item.
"""
