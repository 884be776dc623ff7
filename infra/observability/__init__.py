"""What watches the service: dashboards and alert rules as code, and traces without a collector."""
