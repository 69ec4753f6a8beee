"""Where problems come from and when an answer is right. One file a task; `tokenskip.plugins` names them."""
