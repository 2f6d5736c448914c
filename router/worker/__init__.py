"""The example worker: takes assignments from JetStream, runs them, reports results. It knows the wire only."""
