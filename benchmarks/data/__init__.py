"""The datasets: glyphs, photographs, folders of pictures, emoji, and texts."""
