"""What use cases need from adapters. Each method is one atomic act, and its docstring is the promise."""
