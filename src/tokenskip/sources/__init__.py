"""A whole chain -> shorter candidates. One file a source; `tokenskip.plugins` names them."""
