"""Rows and files on disk: whole or not there, resumable, and never over what is not ours."""
