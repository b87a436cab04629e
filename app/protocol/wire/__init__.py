"""The shapes of the API: requests, items, events, the response, errors."""
