"""Recommendations over HTTP. Needs FastAPI and uvicorn (extra `serve`); an exported model needs no torch."""
