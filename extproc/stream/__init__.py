"""One ext_proc stream: the protocol session and the exchange behind it."""
