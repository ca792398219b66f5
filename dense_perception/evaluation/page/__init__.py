"""The report as one HTML page: sections from the figures, charts, pictures, templates."""
