"""The page that shows what a model is worth: report.html and its plots."""
