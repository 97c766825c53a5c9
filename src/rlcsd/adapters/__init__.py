"""The methods inside other projects' trainers."""
