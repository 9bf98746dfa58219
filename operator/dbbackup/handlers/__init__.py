"""The operator's edge: Kopf watches enqueue, one queue reconciles, results are applied."""
