"""The datasets: glyphs that need no download, and photographs."""
