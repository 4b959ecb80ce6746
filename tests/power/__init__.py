"""A disk that loses power, and what a broker on it keeps."""
