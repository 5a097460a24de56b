"""One OpenAI endpoint in front of ChatGLM servers and their like."""

__version__ = "0.1.0"
