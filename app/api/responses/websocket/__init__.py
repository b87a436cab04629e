"""`/v1/responses` over WebSocket."""
