"""Trajectories -> spans with importance. One file a scorer; `tokenskip.plugins` names them."""
