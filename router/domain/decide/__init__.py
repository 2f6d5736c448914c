"""Values and rules of a decision: request, plan, candidates, outcome and answer."""
