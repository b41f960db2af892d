"""Makes LLM agents measurably better, and proves it."""
