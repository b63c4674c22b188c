"""The web console of operators: pages, HTTP API and live updates."""
