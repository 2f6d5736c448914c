"""What the use cases need from outside. Each method is one atomic act; its docstring is the promise."""
