"""The server: HTTP in the form of OpenAI's API, and a chat page, in front of a serving engine."""
