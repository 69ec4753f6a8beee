"""A question and a ratio -> a prompt, through the chat template that every server renders as well."""
