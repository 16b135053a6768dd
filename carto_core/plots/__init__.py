"""Arrays in, plotly figures, images and HTML out. No Streamlit, no database."""
