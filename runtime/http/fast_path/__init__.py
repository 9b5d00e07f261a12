"""The fast path: answers frequent requests below aiohttp's application, with the same responses."""
