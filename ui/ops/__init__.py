"""What an operator and a stranger meet: headers, open doors, health, figures, logs and an orderly end."""
