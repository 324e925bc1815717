"""Agents that infer their task as they play, and all that exists for them."""
