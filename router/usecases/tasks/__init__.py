"""Pushed tasks from dispatch to usage: attempts, acks, results, final results, the sweeper."""
