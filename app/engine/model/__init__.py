"""One turn of the model: the call that is prepared, the answer that is read and checked."""
