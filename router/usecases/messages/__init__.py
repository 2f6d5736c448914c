"""What every consumer of a stream needs: deliveries, dead letters, isolation of tenants."""
