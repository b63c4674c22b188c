"""The native CPU engine: its C++ sources, and the Python that builds and loads them."""
