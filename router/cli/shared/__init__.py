"""What several commands share: connections, targets, options, output, exit codes."""
