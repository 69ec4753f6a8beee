"""Prompts -> completions. One file a backend; `tokenskip.plugins` names them."""
