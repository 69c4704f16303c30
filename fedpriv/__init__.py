"""Which of the field's words are where: see ARCHITECTURE.md."""
