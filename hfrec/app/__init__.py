"""The page of `hfrec app`: recommendations, their reasons and a map of the items. Only this folder imports Gradio."""
