"""What runs inside the Job. Never imports kopf or the Kubernetes client."""
