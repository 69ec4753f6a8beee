"""An adapter -> a server, a folder, a hub."""
