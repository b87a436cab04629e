"""Documents to text: what an upload, a link or a web page says."""
