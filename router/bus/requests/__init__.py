"""The endpoints for requests over core NATS, and the reply subjects that they answer on."""
