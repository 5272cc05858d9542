"""A page of thumbnails: pictures of the library or of a folder as one HTML file."""
