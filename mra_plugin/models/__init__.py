"""Model families, a folder and a row of `families` each."""
