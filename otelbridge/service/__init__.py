"""`otelbridge run`: follows traces as they grow, for months, and loses nothing."""
