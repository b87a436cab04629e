"""Documents to text: the content of an upload, a link or a web page."""
