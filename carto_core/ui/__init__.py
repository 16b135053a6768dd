"""The only code that knows Streamlit: shell, state, cache, panels. Pages arrange what is here."""
