"""Gary: a container orchestrator without a control plane."""
