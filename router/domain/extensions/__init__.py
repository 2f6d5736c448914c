"""Values and rules of extensions: the pipeline of a request, and the health of each extension."""
