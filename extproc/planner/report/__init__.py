"""Plans and simulations as text, HTML, JSON and plots."""
